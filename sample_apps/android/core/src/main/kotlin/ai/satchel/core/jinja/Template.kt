package ai.satchel.core.jinja

import java.time.LocalDateTime
import java.time.format.DateTimeFormatter
import java.util.Locale

private const val LARGEST_RANGE = 100_000L

/**
 * A Jinja template with the blocks, filters, tests and methods that chat templates use, rendered as Python's Jinja does
 * with trim_blocks and lstrip_blocks. It reads plain values and reaches nothing else.
 *
 * @throws TemplateError the source is no such template
 */
class Template(source: String) {
    private val body =
        try {
            Parser(Lexer(source).tokens()).template()
        } catch (error: StackOverflowError) {
            throw TemplateError("a template that is nested too deeply")
        }

    /**
     * The text for these variables: null, Boolean, Long, Double, String, List, Map.
     *
     * @throws TemplateError the template fails, or refuses what it is given
     */
    fun render(variables: Map<String, Any?>): String {
        val scope = Scope(run = Scope.Run())
        for ((name, function) in GLOBALS) scope[name] = function
        for ((name, value) in variables) scope[name] = value
        try {
            return body.text(Scope(scope))
        } catch (error: StackOverflowError) {
            throw TemplateError("a template that calls itself without an end")
        } catch (error: ClassCastException) {
            throw TemplateError("a value of a kind that does not fit here")
        } catch (error: IllegalArgumentException) {
            throw TemplateError(error.message ?: "a value that does not fit here")
        }
    }
}

private val GLOBALS: Map<String, Callable> =
    mapOf(
        "range" to Callable(::range),
        "namespace" to Callable { given ->
            Namespace(
                LinkedHashMap<String, Any?>().apply {
                    given.values.forEach {
                        for ((key, value) in it as Map<*, *>) put(key as String, value)
                    }; putAll(given.named)
                },
            )
        },
        "dict" to Callable { given ->
            LinkedHashMap<Any?, Any?>().apply { given.values.forEach { putAll(it as Map<*, *>) }; putAll(given.named) }
        },
        "raise_exception" to Callable { given -> throw TemplateError(textOf(given.need(0, "message"))) },
        "strftime_now" to Callable { given -> dated(textOf(given.need(0, "format")), LocalDateTime.now()) },
    )

private fun range(given: Arguments): List<Long> {
    val numbers = given.values.map(::integerOf)
    val (start, stop) = if (numbers.size == 1) 0L to numbers[0] else numbers[0] to numbers[1]
    val step = numbers.getOrElse(2) { 1L }
    if (step == 0L) throw TemplateError("a range with a step of zero")
    val count = if (step > 0) (stop - start + step - 1).floorDiv(step) else (start - stop - step - 1).floorDiv(-step)
    if (count > LARGEST_RANGE) throw TemplateError("a range that is too large")
    return List(maxOf(count, 0).toInt()) { start + it * step }
}

private val DATES =
    mapOf(
        'Y' to "yyyy", 'y' to "yy", 'm' to "MM", 'd' to "dd", 'H' to "HH", 'I' to "hh", 'M' to "mm", 'S' to "ss",
        'p' to "a",
        'B' to "MMMM", 'b' to "MMM", 'A' to "EEEE", 'a' to "EEE", 'j' to "DDD",
    )

/** C's strftime, in English. */
internal fun dated(pattern: String, time: LocalDateTime): String = Regex("%(-?)(.)").replace(pattern) { match ->
    val (bare, letter) = match.destructured
    if (letter == "%") return@replace "%"
    val format = DATES[letter[0]] ?: throw TemplateError("the date format %$letter is not known here")
    val text = DateTimeFormatter.ofPattern(format, Locale.ENGLISH).format(time)
    if (bare == "-") text.trimStart('0').ifEmpty { "0" } else text
}
