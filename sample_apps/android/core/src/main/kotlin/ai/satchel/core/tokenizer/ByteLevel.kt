package ai.satchel.core.tokenizer

/** Bytes as printable characters, one each, as GPT-2's tokenizer writes them. */
internal object ByteLevel {
    private val characters = CharArray(256)
    private val bytes = HashMap<Char, Byte>()

    init {
        var next = 256
        for (byte in 0..255) {
            val printable = byte in 0x21..0x7e || byte in 0xa1..0xac || byte in 0xae..0xff
            val character = if (printable) byte.toChar() else (next++).toChar()
            characters[byte] = character
            bytes[character] = byte.toByte()
        }
    }

    fun encode(text: String): String {
        val given = text.toByteArray()
        return String(CharArray(given.size) { characters[given[it].toInt() and 0xff] })
    }

    /** The bytes that a token stands for; a token with other characters stands for its own. */
    fun decode(token: String): ByteArray =
        if (token.all { it in bytes }) ByteArray(token.length) { bytes.getValue(token[it]) } else token.toByteArray()
}

private const val BROKEN = '\ufffd'

/**
 * UTF-8 -> text, with one U+FFFD for each longest beginning of a character that is not completed, as Unicode advises.
 * The platforms' own decoders do not all agree on how many that are.
 */
internal fun decodeLossy(bytes: ByteArray): String {
    val out = StringBuilder(bytes.size)
    var at = 0
    while (at < bytes.size) {
        val first = bytes[at].toInt() and 0xff
        val length = lengthOf(first)
        val good = if (length == 0) 1 else continued(bytes, at, first, length)
        if (length == 0 || good < length) out.append(BROKEN) else out.append(String(bytes, at, length, Charsets.UTF_8))
        at += good
    }
    return out.toString()
}

/** Bytes of the character that begins with this one, or 0 if none does. */
private fun lengthOf(first: Int): Int = when (first) {
    in 0x00..0x7f -> 1
    in 0xc2..0xdf -> 2
    in 0xe0..0xef -> 3
    in 0xf0..0xf4 -> 4
    else -> 0
}

/** How many of the character's bytes are there and well formed, at least 1. */
private fun continued(bytes: ByteArray, at: Int, first: Int, length: Int): Int {
    for (i in 1 until length) {
        if (at + i >= bytes.size) return i
        val byte = bytes[at + i].toInt() and 0xff
        // The second byte rules out overlong forms, surrogates, and what is beyond U+10FFFF.
        val lowest = if (i > 1) {
            0x80
        } else if (first == 0xe0) {
            0xa0
        } else if (first == 0xf0) {
            0x90
        } else {
            0x80
        }
        val highest = if (i > 1) {
            0xbf
        } else if (first == 0xed) {
            0x9f
        } else if (first == 0xf4) {
            0x8f
        } else {
            0xbf
        }
        if (byte !in lowest..highest) return i
    }
    return length
}
