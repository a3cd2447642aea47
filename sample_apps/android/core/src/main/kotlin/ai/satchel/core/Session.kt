package ai.satchel.core

import ai.satchel.core.tokenizer.Tokenizer

enum class FinishReason { stop, length, context, cancelled }

class GenerateOptions(
    /** By default the manifest's. */
    val sampling: Sampling? = null,
    val maxNewTokens: Int? = null,
    /** By default one from the system. */
    val seed: Long? = null,
    /** By default the manifest's. */
    val stopIds: Collection<Int>? = null,
    val cancellation: Cancellation = Cancellation(),
    /** Called with the ids of the prompt that are done. */
    val onPrefill: (done: Int, total: Int) -> Unit = { _, _ -> },
)

/** How an answer went. */
class Generation(
    val reason: FinishReason,
    val promptTokens: Int,
    val tokens: Int,
    /** Until the first id was chosen. */
    val prefillSeconds: Double,
    /** From there on. */
    val decodeSeconds: Double,
) {
    /** Null where there are too few to tell. */
    val tokensPerSecond: Double? get() = if (tokens > 1 && decodeSeconds > 0) (tokens - 1) / decodeSeconds else null
}

private const val PIECE = 64 // ids of a prompt a call: between calls an answer can be cancelled

/** A loaded bundle that answers. Of one thread at a time; runtime/session.py is its twin. */
class Session private constructor(
    val bundle: Bundle,
    val backend: Backend,
    val tokenizer: Tokenizer?,
    val template: ChatTemplate?,
) : AutoCloseable {
    private var cached: ArrayList<Int>? = null // what the backend's cache holds; null after a call that was interrupted

    /** A plain prompt -> ids, with bos in front where the model wants it. */
    fun encode(text: String): IntArray {
        val rules = bundle.manifest.tokens
        val ids = needTokenizer().encode(text)
        return if (rules.prependBos && rules.bosId != null &&
            ids.firstOrNull() != rules.bosId
        ) {
            intArrayOf(rules.bosId) + ids
        } else {
            ids
        }
    }

    /** A conversation -> ids, ready for the answer. */
    fun encodeChat(messages: List<Message>): IntArray {
        val template =
            template ?: throw tokenizerError("the bundle has no chat template", wanted = "chat_template.jinja")
        return encodeChat(needTokenizer(), template, messages).ids
    }

    /** Says that something else has used the backend, whose cache is then of no use. */
    fun forget() {
        cached = null
    }

    /**
     * The answer to a conversation, in pieces as it comes. What the cache holds of it already is not computed again.
     * Without a chat template the model goes on from the last message.
     */
    fun chat(
        messages: List<Message>,
        options: GenerateOptions = GenerateOptions(),
        onText: (String) -> Unit,
    ): Generation {
        val ids = if (template != null) encodeChat(messages) else encode(messages.last().content)
        val stream = TextStream(needTokenizer()::decode)
        val generation = generate(ids, options, reuse = true) { onText(stream.push(it)) }
        onText(stream.flush())
        return generation
    }

    /** Gives out the ids that follow `ids`, one by one as they are chosen. */
    fun generate(
        ids: IntArray,
        options: GenerateOptions = GenerateOptions(),
        reuse: Boolean = false,
        onId: (Int) -> Unit,
    ): Generation {
        val (room, atEnd) = room(ids, options.maxNewTokens)
        val sampler = Sampler(options.sampling ?: bundle.manifest.generation.sampling, options.seed)
        val stop = (options.stopIds ?: bundle.manifest.tokens.stopIds).toSet()
        val watch = Watch()
        try {
            var logits = feed(ids, reuse, options)
            while (true) {
                options.cancellation.check()
                val id = sampler.choose(logits)
                watch.lap()
                if (id in stop) return watch.generation(FinishReason.stop, ids.size)
                watch.count()
                onId(id)
                if (watch.tokens == room) return watch.generation(atEnd, ids.size)
                options.cancellation.check()
                logits = step(id)
            }
        } catch (end: Cancelled) {
            return watch.generation(FinishReason.cancelled, ids.size)
        }
    }

    override fun close() = backend.close()

    /** How long the answer may be, and what ends it there. Its last id needs no place in the cache. */
    private fun room(ids: IntArray, maxNewTokens: Int?): Pair<Int, FinishReason> {
        val context = bundle.manifest.entry.contextLength
        if (ids.isEmpty()) throw usageError("the prompt is empty", wanted = "at least one id")
        if (maxNewTokens != null && maxNewTokens < 1) {
            throw usageError("the length of an answer is out of range", got = maxNewTokens, wanted = ">= 1")
        }
        val free = context - ids.size + 1
        if (free < 1) {
            val hint = "begin a new chat or shorten the message; `satchel export --context` gives more room"
            throw usageError(
                "the context cannot hold this conversation",
                got = "${ids.size} ids",
                wanted = "at most $context ids",
                hint = hint,
            )
        }
        val wanted = maxNewTokens ?: bundle.manifest.generation.maxNewTokens
        return if (wanted <= free) wanted to FinishReason.length else free to FinishReason.context
    }

    /** Brings the cache to hold exactly `ids`; the logits after the last. */
    private fun feed(ids: IntArray, reuse: Boolean, options: GenerateOptions): FloatArray {
        var held = cached?.takeIf { reuse && it.size < ids.size && it.indices.all { i -> it[i] == ids[i] } }?.size ?: 0
        cached = null
        if (held == 0) backend.reset()
        var logits = FloatArray(0)
        while (held < ids.size) {
            options.cancellation.check()
            val end = minOf(held + PIECE, ids.size)
            logits = backend.prefill(ids.copyOfRange(held, end))
            held = end
            options.onPrefill(held, ids.size)
        }
        cached = ids.toCollection(ArrayList())
        return logits
    }

    private fun step(id: Int): FloatArray {
        val held = cached
        cached = null // until the backend has returned: an interrupted call leaves the cache in between
        val logits = backend.step(id)
        cached = held?.apply { add(id) }
        return logits
    }

    private fun needTokenizer(): Tokenizer =
        tokenizer ?: throw tokenizerError("the bundle has no tokenizer", hint = "export again without --no-tokenizer")

    companion object {
        /** Reads the tokenizer and the template. Throws a TokenizerError or BundleError. */
        fun open(bundle: Bundle, backend: Backend): Session {
            val tokenizer = if (!bundle.has("tokenizer.json")) {
                null
            } else {
                Tokenizer.read(bundle.read("tokenizer.json"), bundle.manifest.tokens.vocabSize)
            }
            val special = if (bundle.has(
                    "tokenizer_config.json",
                )
            ) {
                specialTokens(bundle.read("tokenizer_config.json"))
            } else {
                emptyMap()
            }
            val template = bundle.text("chat_template.jinja")?.let { ChatTemplate(it, special) }
            return Session(bundle, backend, tokenizer, template)
        }
    }
}

/** Times an answer: what comes before the first id, and what comes after. */
private class Watch {
    var tokens = 0
        private set
    private val start = System.nanoTime()
    private var first = start
    private var last = start
    private var laps = 0

    fun lap() {
        last = System.nanoTime()
        if (laps++ == 0) first = last
    }

    fun count() {
        tokens++
    }

    fun generation(reason: FinishReason, promptTokens: Int) =
        Generation(reason, promptTokens, tokens, (first - start) / 1e9, (last - first) / 1e9)
}
