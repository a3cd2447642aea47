package ai.satchel.onnx

import ai.satchel.core.FolderSource
import ai.satchel.core.GenerateOptions
import ai.satchel.core.Host
import ai.satchel.core.Memory
import ai.satchel.core.Message
import ai.satchel.core.ReplayOptions
import ai.satchel.core.Route
import ai.satchel.core.Session
import ai.satchel.core.checkParity
import ai.satchel.core.openBundle
import ai.satchel.core.readGolden
import java.io.File
import kotlin.system.exitProcess

/** Asks a bundle of a whole model a question and replays some of its golden prompts: FOLDER, number of prompts. */
fun main(arguments: Array<String>) {
    val bundle = openBundle(FolderSource(File(arguments[0])))
    val start = System.nanoTime()
    val session = Session.open(bundle, OrtBackend.open(bundle, threads = 1))
    val loadSeconds = (System.nanoTime() - start) / 1e9
    println("loaded in %.1f s, memory %d MB".format(loadSeconds, megabytes()))
    for (prompt in readGolden(bundle).prompts) {
        val text = checkNotNull(prompt.text)
        val encoded = listOf(session.encode(text), session.encodeChat(listOf(Message("user", text))))
        check(encoded.any { it.take(prompt.ids.size) == prompt.ids.toList() }) { "golden has other ids: $text" }
    }
    val question = Message("user", "What is the capital of France?")
    val generation = session.chat(listOf(question), GenerateOptions(maxNewTokens = 24)) { print(it) }
    println("\n${generation.tokens} tokens, ${generation.tokensPerSecond} a second, ${generation.reason}")
    session.forget()
    val report =
        checkParity(
            bundle,
            session.backend,
            Host("a JVM"),
            OrtBackend.NAME,
            loadSeconds,
            ReplayOptions(arguments[1].toInt()),
        )
    for (row in report.rows) {
        println(
            "${row.comparison} ${row.route} ${row.figure}: ${row.value}" +
                if (row.passed) "" else " BEYOND ${row.limit?.value}",
        )
    }
    println(
        "passed ${report.passed}, memory ${megabytes()} MB, " +
            "decode ${report.tokensPerSecond[Route.decode]} tokens a second",
    )
    session.close()
    if (!report.passed) exitProcess(1)
}

private fun megabytes(): Long = (Memory.read()?.peak ?: 0) / 1_000_000
