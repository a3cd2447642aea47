package ai.satchel.core.tokenizer

import ai.satchel.core.SatchelError
import ai.satchel.core.parseJson
import ai.satchel.core.reasonOf
import ai.satchel.core.tokenizerError

/** Text <-> ids by the bundle's tokenizer.json, as the Python library `tokenizers` has them. */
class Tokenizer private constructor(file: Part) {
    private val normalize = normalizer(file.part("normalizer"))
    private val preTokenize = preTokenizer(file.part("pre_tokenizer"))
    private val model = modelOf(requireNotNull(file.part("model")) { "no model" })
    private val decode = decoder(file.part("decoder"))
    private val added = file.parts("added_tokens").map(::AddedToken)
    private val inText = AddedTokens(added.filter { !it.normalized }) { it.content }
    private val inNormalized = AddedTokens(added.filter { it.normalized }) { normalize(it.content) }
    private val tokens: Array<String?>
    private val special = added.filter { it.special }.map { it.content }.toSet()

    /** Every token that the tokenizer marks as special -> its id. */
    val controls: Map<String, Int> = added.filter { it.special }.associate { it.content to it.id }

    /** How many different tokens there are. */
    val size: Int = (model.vocabulary.keys + added.map { it.content }).size

    init {
        val ids = model.vocabulary.values + added.map { it.id }
        require(ids.all { it >= 0 }) { "a negative id" }
        tokens = arrayOfNulls((ids.maxOrNull() ?: -1) + 1)
        for ((token, id) in model.vocabulary) tokens[id] = token
        for (token in added) tokens[token.id] = token.content
    }

    /** Ids of a text, without the post-processor; spellings of control tokens become control tokens. */
    fun encode(text: String): IntArray = encode(text, literally = false)

    /** Ids of a text in which control tokens are only characters. Throws a TokenizerError where that cannot be. */
    fun encodeLiterally(text: String): IntArray {
        val ids = encode(text, literally = true)
        val control = controls.values.toSet()
        if (ids.any { it in control }) {
            throw tokenizerError("the tokenizer turns this text into a control token", got = text.take(80))
        }
        return ids
    }

    /** The text of ids, control tokens left out. */
    fun decode(ids: List<Int>): String {
        if (ids.isEmpty()) return ""
        return decode(ids.mapNotNull { tokens.getOrNull(it) }.filter { it !in special }).joinToString("")
    }

    private fun encode(text: String, literally: Boolean): IntArray {
        val ids = IdList()
        for (section in inText.split(text, literally)) {
            if (section.id != null) ids.add(section.id) else encodeSection(section, literally, ids)
        }
        return ids.toArray()
    }

    private fun encodeSection(section: Section, literally: Boolean, ids: IdList) {
        for (inner in inNormalized.split(normalize(section.text), literally)) {
            if (inner.id != null) {
                ids.add(inner.id)
                continue
            }
            for (piece in preTokenize(
                Piece(inner.text, section.start == 0 && inner.start == 0),
            )) {
                model.encode(piece.text, ids)
            }
        }
    }

    companion object {
        /** Reads tokenizer.json for a model of `vocabSize` ids. Throws a TokenizerError or BundleError. */
        fun read(bytes: ByteArray, vocabSize: Int): Tokenizer {
            val file = parseJson(bytes, "tokenizer.json", exactIntegers = false)
            val tokenizer =
                try {
                    Tokenizer(Part.of(file))
                } catch (error: SatchelError) {
                    throw error
                } catch (error: RuntimeException) { // casts of what is not as it should be, unknown parts, bad patterns
                    throw tokenizerError(
                        "tokenizer.json cannot be read",
                        got = reasonOf(error),
                        hint = "export the bundle again",
                    )
                }
            // A model's embedding is often padded beyond the tokenizer, never the other way round.
            if (tokenizer.tokens.size > vocabSize) {
                val wanted = "at most $vocabSize"
                throw tokenizerError(
                    "the tokenizer has more ids than the model",
                    got = tokenizer.tokens.size,
                    wanted = wanted,
                )
            }
            return tokenizer
        }
    }
}
