package ai.satchel.core.tokenizer

import java.text.Normalizer
import java.util.Locale

internal typealias Normalize = (String) -> String

/** Throws IllegalArgumentException for a normalizer that is not known here. */
internal fun normalizer(part: Part?): Normalize {
    if (part == null) return { it }
    return when (part.type) {
        "Sequence" -> part.parts("normalizers").map(::normalizer).let { all ->
            { all.fold(it) { text, next -> next(text) } }
        }
        "NFC", "NFD", "NFKC", "NFKD" -> Normalizer.Form.valueOf(part.type).let { form ->
            { Normalizer.normalize(it, form) }
        }
        "Prepend" -> part.need("prepend").let { front -> { if (it.isEmpty()) it else front + it } }
        "Replace" -> replacing(part)
        "Lowercase" -> { text -> byCodePoint(text) { it.lowercase(Locale.ROOT) } }
        "StripAccents" -> { text -> byCodePoint(text) { if (isMark(it.codePointAt(0))) "" else it } }
        "Strip" -> stripping(part.flag("strip_left", true), part.flag("strip_right", true))
        else -> part.unknown("normalizer")
    }
}

internal fun replacing(part: Part): Normalize {
    val (pattern, content) = part.pattern() to part.need("content")
    return { pattern.replace(it, content) }
}

private fun byCodePoint(text: String, change: (String) -> String): String =
    buildString { for (code in text.codePoints()) append(change(String(Character.toChars(code)))) }

private fun isMark(code: Int): Boolean = Character.getType(code) == Character.NON_SPACING_MARK.toInt()

private fun stripping(left: Boolean, right: Boolean): Normalize = { text ->
    var (start, end) = 0 to text.length
    if (left) while (start < end && isSpace(text[start].code)) start++
    if (right) while (end > start && isSpace(text[end - 1].code)) end--
    text.substring(start, end)
}
