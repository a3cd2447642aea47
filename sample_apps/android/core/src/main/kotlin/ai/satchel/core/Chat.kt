package ai.satchel.core

import ai.satchel.core.jinja.Template
import ai.satchel.core.jinja.TemplateError
import ai.satchel.core.tokenizer.Tokenizer

data class Message(val role: String, val content: String)

/**
 * A chat template: a conversation -> the text that the model is given.
 *
 * @param special such as {"bos_token": "<s>"}, which templates refer to
 * @throws SatchelError a BundleError: it is no template
 */
class ChatTemplate(source: String, private val special: Map<String, String> = emptyMap()) {
    private val template =
        try {
            Template(source)
        } catch (error: TemplateError) {
            throw bundleError("chat_template.jinja is not a valid template", got = reasonOf(error))
        }

    /** Throws a UsageError where the template refuses the conversation. */
    fun render(messages: List<Message>, addGenerationPrompt: Boolean = true): String {
        if (messages.isEmpty()) throw usageError("a conversation is a list of messages", wanted = "at least one")
        val known = mapOf("tools" to null, "documents" to null) + special
        val plain = messages.map { linkedMapOf("role" to it.role, "content" to it.content) }
        try {
            return template.render(known + mapOf("messages" to plain, "add_generation_prompt" to addGenerationPrompt))
        } catch (error: TemplateError) {
            val hint = "most templates want the roles user and assistant in turn, and text as content"
            throw usageError("the chat template refuses this conversation", got = reasonOf(error), hint = hint)
        }
    }
}

/** The special tokens by name, as templates know them, out of tokenizer_config.json. */
fun specialTokens(config: ByteArray): Map<String, String> {
    val found = LinkedHashMap<String, String>()
    for ((key, value) in objectOf(
        parseJson(config, "tokenizer_config.json", exactIntegers = false),
        "tokenizer_config.json",
    )) {
        val content = if (value is Map<*, *>) value["content"] else value
        if (key.endsWith("_token") && !key.startsWith("add_") && content is String) found[key] = content
    }
    return found
}

/** The text that a conversation becomes, and its ids. */
class EncodedChat(val rendered: String, val ids: IntArray)

/**
 * A conversation -> ids. Text in messages cannot pass for control tokens: their spellings are replaced by one rare
 * character each before rendering, and put back when the pieces of the rendered text are encoded, as the characters
 * that they are made of. runtime/chat.py is its twin.
 */
fun encodeChat(tokenizer: Tokenizer, template: ChatTemplate, messages: List<Message>): EncodedChat {
    val guard = Guard(messages, tokenizer.controls.keys)
    val rendered = template.render(messages.map { Message(guard.hide(it.role), guard.hide(it.content)) })
    return EncodedChat(rendered, encodeGuarded(tokenizer, rendered, guard))
}

private val STAND_INS = 0x12000..0x12399 // cuneiform: printable, without case, never normalized

/** Stand-ins for control tokens that occur in messages. */
class Guard(messages: List<Message>, controls: Collection<String>) {
    private val standIns: List<Pair<String, String>>

    init {
        val text = messages.joinToString("\u0000") { "${it.role}\u0000${it.content}" }
        val used = controls.filter { it.isNotEmpty() && it in text }.sortedWith(LONGEST_FIRST)
        val free = STAND_INS.asSequence().map {
            String(Character.toChars(it))
        }.filter { it !in text }.take(used.size).toList()
        if (free.size < used.size) {
            throw usageError("a conversation spells out too many control tokens", got = used.size, wanted = free.size)
        }
        standIns = used.zip(free)
    }

    /** Whether the messages spell out none. */
    val idle: Boolean get() = standIns.isEmpty()

    fun hide(text: String): String = standIns.fold(text) { hidden, (token, standIn) -> hidden.replace(token, standIn) }

    /** Text with the spellings put back. */
    fun show(text: String): String = standIns.fold(text) { shown, (token, standIn) -> shown.replace(standIn, token) }

    private companion object {
        /** Longest first, then by code point, which is the order of UTF-8's bytes. */
        val LONGEST_FIRST = Comparator<String> { a, b ->
            val byLength = b.codePointCount(0, b.length) - a.codePointCount(0, a.length)
            if (byLength != 0) byLength else compareBytes(a.toByteArray(), b.toByteArray())
        }

        fun compareBytes(a: ByteArray, b: ByteArray): Int {
            val parted = a.indices.firstOrNull { it >= b.size || a[it] != b[it] } ?: return a.size - b.size
            return if (parted >= b.size) 1 else (a[parted].toInt() and 0xff) - (b[parted].toInt() and 0xff)
        }
    }
}

/** Ids of rendered text; only control tokens that the template itself wrote become control ids. */
fun encodeGuarded(tokenizer: Tokenizer, text: String, guard: Guard): IntArray {
    if (guard.idle) return tokenizer.encode(text)
    val ids = splitAt(text, tokenizer.controls).map { (piece, control) ->
        if (control != null) intArrayOf(control) else tokenizer.encodeLiterally(guard.show(piece))
    }
    return ids.fold(IntArray(0)) { all, more -> all + more }
}

/** Text cut at tokens, leftmost and longest first: a piece, and its id, or null for text between them. */
fun splitAt(text: String, tokens: Map<String, Int>): List<Pair<String, Int?>> {
    val pieces = ArrayList<Pair<String, Int?>>()
    var at = 0
    while (at < text.length) {
        val found = text.findAnyOf(tokens.keys.filter { it.isNotEmpty() }.sortedByDescending { it.length }, at)
        val start = found?.first ?: text.length
        if (start > at) pieces.add(text.substring(at, start) to null)
        if (found != null) pieces.add(found.second to tokens.getValue(found.second))
        at = start + (found?.second?.length ?: 0)
    }
    return pieces
}
