package ai.satchel.core

private const val BROKEN = '\ufffd'

/**
 * Detokenizes one id at a time: whole characters only. A token may end in the middle of a character, and its text may
 * depend on the one before it (a leading space): text is held back while it ends in a broken character, and always
 * decoded with what precedes. runtime/generate.py is its twin.
 */
class TextStream(private val decode: (List<Int>) -> String) {
    private val ids = ArrayList<Int>()
    private var context = 0 // ids[context..done) were given out already, and are decoded again for what follows them
    private var done = 0

    /** The text that this id completes; may be empty. */
    fun push(id: Int): String {
        ids.add(id)
        val text = newText()
        if (text.isEmpty() || text.endsWith(BROKEN)) return ""
        context = done
        done = ids.size
        return text
    }

    /** What is held back at the end; bytes of a character that never was completed are dropped. */
    fun flush(): String {
        val text = newText().trimEnd(BROKEN)
        done = ids.size
        context = done
        return text
    }

    private fun newText(): String {
        val before = decode(ids.subList(context, done))
        return decode(ids.subList(context, ids.size)).drop(before.length)
    }
}
