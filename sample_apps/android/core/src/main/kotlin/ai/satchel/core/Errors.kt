package ai.satchel.core

/** The kinds of errors that a person may see, the same set as runtime/errors.py. */
enum class ErrorKind { BundleError, TokenizerError, FormatError, UsageError, OutputError }

/** An error in words for a person: what went wrong, the value got, the value wanted, and a next step. */
class SatchelError(
    val kind: ErrorKind,
    val what: String,
    got: Any? = null,
    wanted: Any? = null,
    hint: String? = null,
) : Exception(sentence(what, got, wanted, hint))

fun bundleError(what: String, got: Any? = null, wanted: Any? = null, hint: String? = null) =
    SatchelError(ErrorKind.BundleError, what, got, wanted, hint)

fun tokenizerError(what: String, got: Any? = null, wanted: Any? = null, hint: String? = null) =
    SatchelError(ErrorKind.TokenizerError, what, got, wanted, hint)

fun formatError(what: String, got: Any? = null, wanted: Any? = null, hint: String? = null) =
    SatchelError(ErrorKind.FormatError, what, got, wanted, hint)

fun usageError(what: String, got: Any? = null, wanted: Any? = null, hint: String? = null) =
    SatchelError(ErrorKind.UsageError, what, got, wanted, hint)

fun outputError(what: String, got: Any? = null, wanted: Any? = null, hint: String? = null) =
    SatchelError(ErrorKind.OutputError, what, got, wanted, hint)

/** Thrown where a person has cancelled. */
class Cancelled : Exception("cancelled")

/** Ends work that runs on another thread, at the next place where it asks. */
class Cancellation {
    @Volatile
    var isCancelled = false
        private set

    fun cancel() {
        isCancelled = true
    }

    /** Throws Cancelled after [cancel]. */
    fun check() {
        if (isCancelled) throw Cancelled()
    }
}

/** What any thrown value says, on one line, for a message. */
fun reasonOf(error: Throwable): String = (error.message ?: error.javaClass.simpleName).lineSequence().first()

private fun sentence(what: String, got: Any?, wanted: Any?, hint: String?): String {
    val parts = listOfNotNull(what, got?.let { "got ${short(it)}" }, wanted?.let { "wanted ${short(it)}" })
    return parts.joinToString("; ") + if (hint == null) "" else ". ${hint.replaceFirstChar(Char::uppercaseChar)}."
}

private fun short(value: Any): String {
    val text = value.toString()
    return if (text.length <= 200) text else text.take(197) + "..."
}
