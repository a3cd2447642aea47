package ai.satchel.sample

import ai.satchel.core.Cancelled
import ai.satchel.core.Chat
import ai.satchel.core.FinishReason
import ai.satchel.core.GenerateOptions
import ai.satchel.core.Generation
import ai.satchel.core.Memory
import ai.satchel.core.Message
import ai.satchel.core.ParityReport
import ai.satchel.core.ReplayOptions
import ai.satchel.core.Sampling
import ai.satchel.core.SatchelError
import ai.satchel.core.reasonOf
import java.io.File

enum class Screen { Bundle, Chat, Parity }

/** What is being done: a string's id, and how far it is; of 0 where nobody knows. */
class Working(val stage: Int, val done: Long, val total: Long)

/** What went wrong, in words for a person; `unexpected` if no error of ours foresaw it. */
class Failure(val message: String, val unexpected: Boolean)

/** What the screens show of the loaded bundle. */
class Loaded(val engine: Engine, val memory: Long?)

/** How an answer is to be made, as the fields say. */
class AnswerSettings(val sampling: Sampling, val seed: Long?, val maxNewTokens: Int)

/** Everything the screens show, and what they may do. Of the main thread; `observer` is called after each change. */
class AppState(private val worker: Worker, val places: Places, val device: Device) {
    var observer: () -> Unit = {}
    var screen = Screen.Bundle
        private set
    var working: Working? = null
        private set
    var failure: Failure? = null
        private set
    var loaded: Loaded? = null
        private set
    var bundles: List<Place> = emptyList()
        private set
    var chat = Chat.new("")
        private set

    /** The answer that is being written; null when none is. */
    var answer: String? = null
        private set

    /** Ids of the prompt that are done, of how many, while an answer has not begun. */
    var reading: Pair<Int, Int>? = null
        private set
    var generation: Generation? = null
        private set
    var report: ParityReport? = null
        private set
    var reportFile: File? = null
        private set
    private var task: Worker.Task? = null

    val busy: Boolean get() = task != null

    init {
        worker.start({ places.clean() }, {}, ::fail)
    }

    fun show(screen: Screen) = change { this.screen = if (loaded == null) Screen.Bundle else screen }

    fun cancel() {
        task?.cancellation?.cancel()
    }

    fun fail(error: Throwable) = change { failure = failureOf(error) }

    fun listBundles() {
        worker.start({ places.list() }, { change { bundles = it } }, ::fail)
    }

    fun delete(place: Place) {
        if (!busy) run({ places.delete(place) }) { listBundles() }
    }

    /** Opens a bundle and loads its model, in place of the one that was loaded. */
    fun open(place: () -> Place) {
        if (busy) return
        val before = loaded
        loaded = null
        report = null
        screen = Screen.Bundle
        run({ task ->
            before?.engine?.close()
            val bundle = places.open(place(), { stage, done, total ->
                task.tell { change { working = Working(stage, done, total) } }
            }, task.cancellation)
            task.tell { change { working = Working(R.string.stage_starting, 0, 0) } }
            Loaded(Engine.load(bundle, device), Memory.read()?.resident)
        }) {
            loaded = it
            chat = Chat.new(it.engine.bundle.manifest.model.modelId)
            generation = null
            screen = Screen.Chat
            listBundles()
        }
    }

    fun send(text: String, settings: AnswerSettings) {
        val engine = loaded?.engine ?: return
        if (busy || text.isBlank()) return
        chat = chat.copy(messages = chat.messages + Message("user", text.trim()))
        answer = ""
        generation = null
        val asked = chat
        val work = { task: Worker.Task ->
            engine.session.chat(asked.messages, optionsOf(settings, task)) { piece -> told(task, piece) }
        }
        // A message without an answer would stand in the way of the next one: most templates want the roles in turn.
        run(work, failed = { chat = asked.copy(messages = asked.messages.dropLast(1)) }) {
            generation = it
            keep(asked.copy(messages = asked.messages + Message("assistant", answer.orEmpty())))
        }
    }

    private fun optionsOf(settings: AnswerSettings, task: Worker.Task) =
        GenerateOptions(settings.sampling, settings.maxNewTokens, settings.seed, cancellation = task.cancellation) {
                done,
                total,
            ->
            task.tell { change { reading = done to total } }
        }

    private fun told(task: Worker.Task, piece: String) {
        if (piece.isNotEmpty()) task.tell { change { answer += piece } }
    }

    fun runParity(deviceName: String, prompts: Int?) {
        val engine = loaded?.engine ?: return
        if (busy) return
        report = null
        run({ task ->
            val told = { done: Int, total: Int ->
                task.tell { change { working = Working(R.string.stage_replaying, done.toLong(), total.toLong()) } }
            }
            val report = engine.parity(deviceName, ReplayOptions(prompts, told, task.cancellation))
            report to places.writeReport(report.fileName, report.json)
        }) { (found, file) ->
            report = found
            reportFile = file
        }
    }

    fun newChat() = show(Chat.new(chat.model))

    fun show(chat: Chat) = change {
        if (!busy) {
            this.chat = chat
            generation = null
        }
    }

    fun deleteChat() {
        if (busy) return
        val gone = chat.id
        worker.start({ places.history.delete(gone) }, {}, ::fail)
        newChat()
    }

    private fun keep(chat: Chat) {
        this.chat = chat
        worker.start({ places.history.save(chat) }, {}, ::fail)
    }

    /** Does work on the worker, with what the screens show meanwhile. */
    private fun <T> run(work: (Worker.Task) -> T, failed: () -> Unit = {}, done: (T) -> Unit) {
        failure = null
        task = worker.start(work, { result -> ended { done(result) } }) { error ->
            ended {
                failure = failureOf(error)
                failed()
            }
        }
        observer()
    }

    private fun ended(then: () -> Unit) = change {
        task = null
        then()
        working = null
        answer = null
        reading = null
    }

    private fun change(change: () -> Unit) {
        change.invoke()
        observer()
    }
}

/** Null where a person has cancelled. */
private fun failureOf(error: Throwable): Failure? = when (error) {
    is Cancelled -> null
    is SatchelError -> Failure(error.message.orEmpty().replaceFirstChar(Char::uppercaseChar), unexpected = false)
    else -> Failure(reasonOf(error), unexpected = true)
}

/** What a person is told of why an answer ended; null where it ended by itself. */
fun noteOf(reason: FinishReason): Int? = when (reason) {
    FinishReason.stop -> null
    FinishReason.length -> R.string.ended_length
    FinishReason.context -> R.string.ended_context
    FinishReason.cancelled -> R.string.ended_cancelled
}
