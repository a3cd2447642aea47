package ai.satchel.core

import java.io.File
import java.io.IOException
import java.util.UUID

private const val MOST = 100
private const val LONGEST_TITLE = 60

data class Chat(val id: String, val model: String, val messages: List<Message>) {
    /** The beginning of the first message, or null before there is one. */
    val title: String? get() = messages.firstOrNull { it.role == "user" }?.content?.take(LONGEST_TITLE)

    companion object {
        fun new(model: String) = Chat(UUID.randomUUID().toString(), model, emptyList())
    }
}

/** Earlier chats, the latest first, in one file; the oldest beyond MOST go. */
class ChatHistory(private val file: File) {
    private val message = record("role", "content") { f -> Message(f("role", text), f("content", text)) }
    private val chat = record("id", "model", "messages") { f ->
        Chat(f("id", text), f("model", text), f("messages", list(message)))
    }

    /** None where there is no file, or one that cannot be read. */
    fun read(): List<Chat> = try {
        list(chat)(parseJson(file.readBytes(), file.name), file.name)
    } catch (error: IOException) {
        emptyList()
    } catch (error: SatchelError) {
        emptyList()
    }

    /** Puts a chat in front of the others. Throws an OutputError. */
    fun save(chat: Chat) = write(listOf(chat) + read().filter { it.id != chat.id })

    fun delete(id: String) = write(read().filter { it.id != id })

    private fun write(chats: List<Chat>) {
        val value = chats.take(MOST).map { chat ->
            mapOf(
                "id" to chat.id,
                "model" to chat.model,
                "messages" to chat.messages.map {
                    mapOf("role" to it.role, "content" to it.content)
                },
            )
        }
        val partial = File(file.path + ".partial")
        try {
            file.parentFile?.mkdirs()
            partial.writeText(canonicalJson(value))
            if (!partial.renameTo(file)) throw IOException("$file cannot be replaced")
        } catch (error: IOException) {
            throw outputError("the chat cannot be kept", got = reasonOf(error), hint = "free some space")
        }
    }
}
