package ai.satchel.core.tokenizer

import java.util.regex.Pattern

/** Every character with Unicode's property White_Space, as it is written inside a set. */
private const val SPACES = "\\t\\n\\u000B\\f\\r \\u0085\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000"
private const val LETTERS = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}"
private val SCRIPTS =
    setOf(
        "Arabic", "Armenian", "Bengali", "Cyrillic", "Devanagari", "Georgian", "Greek", "Han", "Hangul", "Hebrew",
        "Hiragana", "Katakana", "Khmer", "Lao", "Latin", "Myanmar", "Tamil", "Telugu", "Thai",
    )
private val CATEGORY = Regex("[LMNPSZC][a-z]?")

/** Whether a code point has Unicode's property White_Space. */
internal fun isSpace(code: Int): Boolean =
    code in 9..13 || code == 32 || code == 0x85 || code == 0xa0 || code == 0x1680 || code in 0x2000..0x200a ||
        code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000

/** What a tokenizer looks for in a text. */
internal class TextPattern private constructor(private val pattern: Pattern) {
    /** Where it is, from left to right: pairs of beginning and end. */
    fun find(text: String): List<IntRange> {
        val matcher = pattern.matcher(text)
        return buildList { while (matcher.find()) add(matcher.start() until matcher.end()) }
    }

    fun replace(text: String, content: String): String =
        pattern.matcher(text).replaceAll(java.util.regex.Matcher.quoteReplacement(content))

    companion object {
        fun literal(text: String) = TextPattern(Pattern.compile(Pattern.quote(text)))

        /** A regular expression as the Python library reads it, which is as Oniguruma has Ruby's. */
        fun regex(source: String): TextPattern {
            // Ruby's ^ and $ are ends of lines, and lines end with \n alone.
            val flags = Pattern.MULTILINE or Pattern.UNIX_LINES or Pattern.UNICODE_CASE
            return TextPattern(Pattern.compile(translated(source), flags))
        }
    }
}

/**
 * The same expression in what Java and Android's ICU read alike: Java's \s, \d and \w are ASCII's, Android's are
 * Unicode's, and ICU wants braces escaped in sets.
 */
internal fun translated(source: String): String = Translator(source).run()

private class Translator(private val source: String) {
    private val out = StringBuilder()
    private var at = 0
    private var sets = 0 // how deep in [...]

    fun run(): String {
        while (at < source.length) {
            when (val c = source[at++]) {
                '\\' -> escape()
                '[' -> out.append(c).also { openSet() }
                ']' -> out.append(c).also { if (sets > 0) sets-- }
                '{', '}', '&', '~' -> out.append(if (sets > 0) "\\$c" else "$c")
                else -> out.append(c)
            }
        }
        return out.toString()
    }

    private fun openSet() {
        sets++
        if (source.startsWith("^", at)) out.append(source[at++])
        if (source.startsWith("]", at)) out.append("\\").append(source[at++]) // literal in front
    }

    private fun escape() {
        require(at < source.length) { "a regular expression that ends with a backslash" }
        when (val c = source[at++]) {
            's' -> set(SPACES, false)
            'S' -> set(SPACES, true)
            'd' -> out.append("\\p{Nd}")
            'D' -> out.append("\\P{Nd}")
            'w' -> set(LETTERS, false)
            'W' -> set(LETTERS, true)
            'h' -> set("0-9a-fA-F", false)
            'H' -> set("0-9a-fA-F", true)
            'p', 'P' -> property(c)
            else -> out.append('\\').append(c)
        }
    }

    private fun set(members: String, negated: Boolean) {
        if (negated) out.append("[^$members]") else out.append(if (sets > 0) members else "[$members]")
    }

    private fun property(letter: Char) {
        val end = source.indexOf('}', at)
        require(source.startsWith("{", at) && end > 0) { "a property without braces in a regular expression" }
        var name = source.substring(at + 1, end)
        at = end + 1
        val negated = (letter == 'P') != name.startsWith("^")
        name = name.removePrefix("^")
        require(CATEGORY.matches(name) || name in SCRIPTS) { "the property '$name' is not known here" }
        val said = if (name in SCRIPTS) "script=$name" else name
        out.append(if (negated) "\\P{" else "\\p{").append(said).append('}')
    }
}
