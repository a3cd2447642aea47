package ai.satchel.core.tokenizer

internal typealias DecodeTokens = (List<String>) -> List<String>

/** Throws IllegalArgumentException for a decoder that is not known here. */
internal fun decoder(part: Part?): DecodeTokens {
    if (part == null) return { listOf(it.joinToString(" ")) }
    return when (part.type) {
        "Sequence" -> {
            val all = part.parts("decoders").map(::decoder)
            return { tokens -> all.fold(tokens) { now, next -> next(now) } }
        }
        "ByteLevel" -> { tokens -> listOf(decodeLossy(joined(tokens.map(ByteLevel::decode)))) }
        "ByteFallback" -> ::withBytes
        "Fuse" -> { tokens -> listOf(tokens.joinToString("")) }
        "Replace" -> replacing(part).let { replace -> { tokens -> tokens.map(replace) } }
        "Strip" -> stripping(part.need("content"), part.integer("start") ?: 0, part.integer("stop") ?: 0)
        "Metaspace" -> metaspace(part.string("replacement") ?: "\u2581", prependScheme(part) != "never")
        else -> part.unknown("decoder")
    }
}

private fun joined(parts: List<ByteArray>): ByteArray {
    val all = ByteArray(parts.sumOf { it.size })
    parts.fold(0) { at, part -> part.copyInto(all, at).let { at + part.size } }
    return all
}

private val BYTE = Regex("<0x([0-9A-Fa-f]{2})>")

/** Runs of tokens for bytes become the text that they are, or a U+FFFD each. */
private fun withBytes(tokens: List<String>): List<String> {
    val found = ArrayList<String>()
    val run = ArrayList<Byte>()
    fun flush() {
        if (run.isEmpty()) return
        val text = decodeLossy(run.toByteArray())
        val whole = text.toByteArray().contentEquals(run.toByteArray())
        if (whole) found.add(text) else repeat(run.size) { found.add("\ufffd") }
        run.clear()
    }
    for (token in tokens) {
        val byte = BYTE.matchEntire(token)
        if (byte != null) {
            run.add(byte.groupValues[1].toInt(16).toByte())
        } else {
            flush()
            found.add(token)
        }
    }
    flush()
    return found
}

private fun stripping(content: String, start: Int, stop: Int): DecodeTokens = { tokens ->
    tokens.map { token ->
        var from = 0
        var to = token.length
        repeat(start) { if (token.startsWith(content, from)) from += content.length }
        repeat(stop) {
            if (to - content.length >= from && token.startsWith(content, to - content.length)) to -= content.length
        }
        token.substring(from, to)
    }
}

private fun metaspace(mark: String, prepended: Boolean): DecodeTokens = { tokens ->
    tokens.mapIndexed { i, token -> token.replace(mark, if (i == 0 && prepended) "" else " ") }
}
