package ai.satchel.core.tokenizer

/** One object of tokenizer.json: a normalizer, a pre-tokenizer, a model, a decoder, an added token. */
internal class Part(private val values: Map<*, *>) {
    val type: String get() = string("type") ?: throw IllegalArgumentException("a part without a type: ${values.keys}")

    fun string(key: String): String? = values[key] as? String

    fun need(key: String): String = string(key) ?: throw IllegalArgumentException("no text '$key' in ${values.keys}")

    fun flag(key: String, default: Boolean = false): Boolean = values[key] as? Boolean ?: default

    fun integer(key: String): Int? = (values[key] as? Long)?.toInt()

    fun list(key: String): List<*> = values[key] as? List<*> ?: throw IllegalArgumentException("no list '$key'")

    fun map(key: String): Map<*, *> = values[key] as? Map<*, *> ?: throw IllegalArgumentException("no object '$key'")

    fun part(key: String): Part? = values[key]?.let(::of)

    fun parts(key: String): List<Part> = (values[key] as? List<*>).orEmpty().map { of(it) }

    fun pattern(key: String = "pattern"): TextPattern {
        val given = part(key) ?: throw IllegalArgumentException("no '$key'")
        val literal = given.string("String")
        return if (literal != null) TextPattern.literal(literal) else TextPattern.regex(given.need("Regex"))
    }

    /** Throws IllegalArgumentException: the type is not known here. */
    fun unknown(what: String): Nothing = throw IllegalArgumentException("the $what '$type' is not known here")

    companion object {
        fun of(value: Any?): Part = Part(value as? Map<*, *> ?: throw IllegalArgumentException("no object: $value"))
    }
}
