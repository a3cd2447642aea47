package ai.satchel.core.jinja

/** A template that is no Jinja, or that fails as it runs. */
class TemplateError(message: String) : Exception(message)

internal enum class Kind {
    Data,
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name,
    Text,
    Integer,
    Float,
    Operator,
    End,
}

internal class Token(val kind: Kind, val text: String, val line: Int) {
    override fun toString(): String = if (kind == Kind.End) "the end of the template" else "'$text'"
}

/** A template's source -> tokens, with trim_blocks and lstrip_blocks as transformers has them. */
internal class Lexer(source: String) {
    private val source = source.replace("\r\n", "\n").replace('\r', '\n').removeSuffix("\n")
    private val tokens = ArrayList<Token>()
    private var at = 0
    private var startsLine = true // whether the last tag ended with a line, or there was none

    fun tokens(): List<Token> {
        while (at < source.length) {
            val tag = nextTag()
            text(tag)
            if (tag < 0) break
            at = tag + 2
            when (source[tag + 1]) {
                '#' -> comment()
                '{' -> expression(Kind.VariableBegin, Kind.VariableEnd, "}}")
                else -> if (!raw()) expression(Kind.BlockBegin, Kind.BlockEnd, "%}")
            }
        }
        add(Kind.End, "")
        return tokens
    }

    private fun nextTag(): Int {
        var place = source.indexOf('{', at)
        while (place >= 0 && source.getOrNull(place + 1) !in TAGS) place = source.indexOf('{', place + 1)
        return place
    }

    /** The text before a tag, as the tag's sign wants it. */
    private fun text(tag: Int) {
        val text = source.substring(at, if (tag < 0) source.length else tag)
        val sign = if (tag < 0) null else source.getOrNull(tag + 2)
        val block = tag >= 0 && source[tag + 1] != '{'
        val kept =
            when {
                sign == '-' -> text.trimEnd()
                block && sign != '+' -> withoutIndentation(text)
                else -> text
            }
        if (kept.isNotEmpty()) add(Kind.Data, kept)
    }

    /** Without the white space in front of a tag that begins a line. */
    private fun withoutIndentation(text: String): String {
        val line = text.lastIndexOf('\n') + 1
        return if ((line > 0 || startsLine) && text.substring(line).isBlank()) text.substring(0, line) else text
    }

    private fun comment() {
        val end = source.indexOf("#}", at)
        if (end < 0) fail("a comment without an end")
        at = end + 2
        afterTag(if (end > 0) source[end - 1] else ' ', trims = true)
    }

    /** Skips what the end of a tag takes with it. */
    private fun afterTag(sign: Char, trims: Boolean) {
        startsLine = false
        if (sign == '-') {
            while (at < source.length && source[at].isWhitespace()) at++
            startsLine = at > 0 && source[at - 1] == '\n'
        } else if (trims && sign != '+' && at < source.length && source[at] == '\n') {
            at++
            startsLine = true
        }
    }

    /** `{% raw %}` with what it holds. */
    private fun raw(): Boolean {
        val begin = RAW.matchAt(source, at) ?: return false
        at = begin.range.last + 1
        afterTag(sign(begin.groupValues[1]), trims = true)
        val end = ENDRAW.find(source, at) ?: fail("'raw' without an end")
        val text = source.substring(at, end.range.first)
        val kept = if (end.groupValues[1] ==
            "-"
        ) {
            text.trimEnd()
        } else if (end.groupValues[1] == "+") {
            text
        } else {
            withoutIndentation(text)
        }
        if (kept.isNotEmpty()) add(Kind.Data, kept)
        at = end.range.last + 1
        afterTag(sign(end.groupValues[2]), trims = true)
        return true
    }

    private fun sign(text: String): Char = text.firstOrNull() ?: ' '

    private fun expression(begin: Kind, end: Kind, closing: String) {
        add(begin, source.substring(at - 2, at))
        if (at < source.length && source[at] in "-+") at++
        val open = ArrayList<Char>()
        while (true) {
            while (at < source.length && source[at].isWhitespace()) at++
            if (at >= source.length) fail("a tag without an end")
            if (open.isEmpty() && closes(end, closing)) return
            token(open)
        }
    }

    private fun closes(kind: Kind, closing: String): Boolean {
        val signed = source[at] in "-+" && source.startsWith(closing, at + 1)
        if (!signed && !source.startsWith(closing, at)) return false
        val sign = if (signed) source[at] else ' '
        add(kind, closing)
        at += closing.length + if (signed) 1 else 0
        afterTag(sign, trims = kind == Kind.BlockEnd)
        return true
    }

    private fun token(open: MutableList<Char>) {
        val c = source[at]
        when {
            c == '"' || c == '\'' -> text()
            c.isDigit() -> number()
            c.isLetter() || c == '_' -> take(Kind.Name, NAME)
            else -> operator(open)
        }
    }

    private fun take(kind: Kind, pattern: Regex) {
        val found = pattern.matchAt(source, at) ?: fail("an unexpected '${source[at]}'")
        add(kind, found.value)
        at = found.range.last + 1
    }

    private fun number() {
        val float = FLOAT.matchAt(source, at)
        if (float != null) take(Kind.Float, FLOAT) else take(Kind.Integer, INTEGER)
    }

    private fun text() {
        val quote = source[at++]
        val text = StringBuilder()
        while (true) {
            if (at >= source.length) fail("a string without an end")
            val c = source[at++]
            if (c == quote) break
            if (c == '\\') text.append(escape()) else text.append(c)
        }
        add(Kind.Text, text.toString())
    }

    private fun escape(): String {
        if (at >= source.length) fail("a string without an end")
        return when (val c = source[at++]) {
            'n' -> "\n"
            't' -> "\t"
            'r' -> "\r"
            'b' -> "\b"
            'f' -> "\u000c"
            'v' -> "\u000b"
            'a' -> "\u0007"
            '0' -> "\u0000"
            '\n' -> ""
            '\\', '\'', '"' -> "$c"
            'x' -> code(2)
            'u' -> code(4)
            'U' -> code(8)
            else -> "\\$c"
        }
    }

    private fun code(digits: Int): String {
        val value = source.substring(at, minOf(at + digits, source.length)).toIntOrNull(16)
        if (value == null || !Character.isValidCodePoint(value)) fail("an escape that is no character")
        at += digits
        return String(Character.toChars(value))
    }

    private fun operator(open: MutableList<Char>) {
        val operator = OPERATORS.firstOrNull { source.startsWith(it, at) } ?: fail("an unexpected '${source[at]}'")
        if (operator in BRACKETS) open.add(operator[0])
        if (operator in BRACKETS.values &&
            BRACKETS[open.removeLastOrNull()?.toString()] != operator
        ) {
            fail("an unexpected '$operator'")
        }
        add(Kind.Operator, operator)
        at += operator.length
    }

    private fun add(kind: Kind, text: String) {
        tokens.add(Token(kind, text, line()))
    }

    private fun line(): Int = source.take(at).count { it == '\n' } + 1

    private fun fail(what: String): Nothing = throw TemplateError("$what in line ${line()}")

    private companion object {
        val TAGS = setOf('{', '%', '#')
        val RAW = Regex("[-+]?\\s*raw\\s*([-+]?)%}")
        val ENDRAW = Regex("\\{%([-+]?)\\s*endraw\\s*([-+]?)%}")
        val NAME = Regex("[\\p{L}_][\\p{L}\\p{M}\\p{Nd}_]*")
        val INTEGER = Regex("0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|[0-9](?:_?[0-9])*")
        val FLOAT = Regex("[0-9](?:_?[0-9])*(?:\\.[0-9](?:_?[0-9])*(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)")
        val BRACKETS = mapOf("(" to ")", "[" to "]", "{" to "}")
        val OPERATORS =
            listOf(
                "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", ">", "<", "=", ".", ":", "|", ",",
                "(", ")", "[", "]", "{", "}",
            )
    }
}
