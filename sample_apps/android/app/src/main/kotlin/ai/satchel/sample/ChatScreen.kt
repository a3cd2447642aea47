package ai.satchel.sample

import ai.satchel.core.Generation
import ai.satchel.core.Memory
import ai.satchel.core.Message
import ai.satchel.core.Sampling
import ai.satchel.core.usageError
import android.app.AlertDialog
import android.view.LayoutInflater
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import android.widget.ToggleButton

/** Streams answers, keeps chats, shows tokens a second and memory. */
class ChatScreen(private val root: View, private val state: AppState) {
    private val context = root.context
    private val messages = root.view<LinearLayout>(R.id.messages)
    private val scroll = root.view<ScrollView>(R.id.messages_scroll)
    private val prompt = root.view<EditText>(R.id.prompt)
    private var chatShown = ""
    private var defaultsOf: Loaded? = null

    init {
        button(R.id.send) { send() }
        button(R.id.stop) { state.cancel() }
        button(R.id.new_chat) { state.newChat() }
        button(R.id.earlier_chats) { chooseChat() }
        button(R.id.delete_chat) { state.deleteChat() }
        root.view<ToggleButton>(R.id.show_settings).setOnCheckedChangeListener { _, on ->
            view<View>(R.id.settings).shown = on
        }
        view<View>(R.id.settings).shown = view<ToggleButton>(R.id.show_settings).isChecked
    }

    fun render() {
        val loaded = state.loaded
        if (loaded != null && loaded !== defaultsOf) showDefaults(loaded)
        for (id in listOf(R.id.send, R.id.new_chat, R.id.earlier_chats, R.id.delete_chat)) {
            view<View>(id).isEnabled =
                !state.busy
        }
        view<View>(R.id.stop).isEnabled = state.answer != null
        showMessages()
        view<TextView>(R.id.speed).textIfNew = speed()
    }

    private fun send() {
        val settings =
            try {
                settings()
            } catch (error: Exception) {
                return state.fail(error)
            }
        val text = prompt.string()
        if (text.isNotEmpty()) prompt.setText("")
        state.send(text, settings)
    }

    /** What the fields say; a UsageError where one is no number or out of range. */
    private fun settings(): AnswerSettings {
        fun <T : Any> field(id: Int, label: Int, read: (String) -> T?): T = read(view<EditText>(id).string())
            ?: throw usageError(
                "'${context.getString(label)}' is no number in range",
                got = view<EditText>(id).string(),
            )
        val sampling = Sampling(
            field(R.id.temperature, R.string.temperature, String::toDoubleOrNull),
            field(R.id.top_k, R.string.top_k, String::toIntOrNull),
            field(R.id.top_p, R.string.top_p, String::toDoubleOrNull),
        )
        sampling.check()
        val seed = if (view<EditText>(
                R.id.seed,
            ).string().isEmpty()
        ) {
            null
        } else {
            field(R.id.seed, R.string.seed, String::toLongOrNull)
        }
        return AnswerSettings(sampling, seed, field(R.id.max_tokens, R.string.longest_answer, String::toIntOrNull))
    }

    private fun showDefaults(loaded: Loaded) {
        defaultsOf = loaded
        val (longest, sampling) = loaded.engine.bundle.manifest.generation
        val values = mapOf(
            R.id.temperature to sampling.temperature,
            R.id.top_k to sampling.topK,
            R.id.top_p to sampling.topP,
            R.id.max_tokens to longest,
        )
        for ((id, value) in values) view<EditText>(id).setText(value.toString())
    }

    private fun showMessages() {
        val all = state.chat.messages + listOfNotNull(state.answer?.let { Message("assistant", it) })
        val atEnd = !scroll.canScrollVertically(1)
        if (chatShown != state.chat.id) messages.removeAllViews()
        chatShown = state.chat.id
        while (messages.childCount > all.size) messages.removeViewAt(messages.childCount - 1)
        for ((i, message) in all.withIndex()) {
            if (i ==
                messages.childCount
            ) {
                messages.addView(LayoutInflater.from(context).inflate(R.layout.message, messages, false))
            }
            show(message, messages.getChildAt(i) as TextView)
        }
        if (atEnd) scroll.post { scroll.fullScroll(View.FOCUS_DOWN) }
    }

    private fun show(message: Message, item: TextView) {
        val user = message.role == "user"
        item.setBackgroundColor(context.getColor(if (user) R.color.user_message else R.color.model_message))
        item.textIfNew = message.content
        item.contentDescription = context.getString(if (user) R.string.you else R.string.model, message.content)
    }

    private fun speed(): String {
        val reading = state.reading
        val generation = state.generation
        return when {
            state.answer.isNullOrEmpty() && reading != null -> context.getString(
                R.string.stage_reading,
                reading.first,
                reading.second,
            )
            generation != null -> described(generation)
            state.loaded?.engine?.session?.template == null && state.loaded != null -> context.getString(
                R.string.no_template,
            )
            else -> ""
        }
    }

    private fun described(generation: Generation): String {
        val memory = megabytes(Memory.read()?.resident)
        val rate = oneDigit(generation.tokensPerSecond)
        val said = context.getString(
            R.string.speed,
            generation.tokens,
            rate,
            generation.promptTokens,
            generation.prefillSeconds,
            memory,
        )
        return listOfNotNull(said, noteOf(generation.reason)?.let(context::getString)).joinToString(" · ")
    }

    private fun chooseChat() {
        val chats = state.places.history.read()
        val titles = chats.map { it.title ?: context.getString(R.string.new_chat) }.toTypedArray()
        AlertDialog.Builder(context)
            .setTitle(R.string.earlier_chats)
            .setItems(titles) { _, which -> state.show(chats[which]) }
            .setNegativeButton(R.string.cancel, null)
            .show()
    }

    private fun button(id: Int, click: () -> Unit) = view<Button>(id).setOnClickListener { click() }

    private fun <T : View> view(id: Int): T = root.view(id)
}
