package ai.satchel.sample

import ai.satchel.core.Cancellation
import ai.satchel.core.ParityReport
import ai.satchel.core.ReplayOptions
import ai.satchel.core.SUFFIX
import ai.satchel.core.SatchelError
import ai.satchel.core.usageError
import android.app.Activity
import android.app.Instrumentation
import android.os.Bundle
import java.io.File

private const val STARTED = 1
private const val PASSED = 0
private const val FAILED = -2

/**
 * Replays a bundle's golden prompts on the device, without a screen, and writes parity-<device>.json where `adb pull`
 * finds it. README.md has the commands.
 *
 * Arguments: `bundle`, the name of a folder below files/bundles, with or without ".satchel"; by default the only one
 * that is there or in the app. `device`, a name for the report. `prompts`, to replay only the first so many.
 *
 * The result is -1 (OK) when the report was written, with `report`, its path, and `passed`; else 0, with `error`.
 */
class ParityInstrumentation : Instrumentation() {
    private lateinit var arguments: Bundle

    override fun onCreate(arguments: Bundle?) {
        super.onCreate(arguments)
        this.arguments = arguments ?: Bundle()
        start()
    }

    override fun onStart() {
        super.onStart()
        val result = Bundle()
        tell(STARTED, "")
        val code =
            try {
                val (report, file) = run()
                result.putString("report", file.path)
                result.putString("passed", report.passed.toString())
                tell(if (report.passed) PASSED else FAILED, failures(report))
                Activity.RESULT_OK
            } catch (error: Throwable) { // whatever it is: the shell has to be told
                val message = if (error is SatchelError) error.message.orEmpty() else error.toString()
                result.putString("error", message)
                tell(FAILED, message)
                Activity.RESULT_CANCELED
            }
        finish(code, result)
    }

    private fun run(): Pair<ParityReport, File> {
        val (places, device) = Places(targetContext) to Device(targetContext)
        val bundle = places.open(place(places), { _, _, _ -> }, Cancellation())
        Engine.load(bundle, device).use { engine ->
            val progress = { done: Int, total: Int ->
                sendStatus(STARTED, Bundle().apply { putString("progress", "$done of $total prompts") })
            }
            val prompts = arguments.getString("prompts")?.toIntOrNull()
            val report = engine.parity(arguments.getString("device").orEmpty(), ReplayOptions(prompts, progress))
            return report to places.writeReport(report.fileName, report.json)
        }
    }

    private fun place(places: Places): Place {
        val name = arguments.getString("bundle")?.removeSuffix(SUFFIX)?.plus(SUFFIX)
        val pushed = name?.let { places.pushed(it) }
        if (pushed != null && pushed.isDirectory) return Place.Pushed(pushed, 0)
        val all = places.list()
        return all.filter { name == null || it.name == name }.singleOrNull()
            ?: throw usageError(
                "no such bundle on this device",
                got = name ?: "none named",
                wanted = all.map {
                    it.name
                },
                hint = "push it, or name one: -e bundle NAME",
            )
    }

    private fun failures(report: ParityReport): String = report.rows.filter {
        !it.passed
    }.joinToString("\n") { "${it.comparison} ${it.route} ${it.figure}: ${it.value}, limit ${it.limit?.value}" }

    /** As test runners report, so that Gradle's connectedAndroidTest understands it. */
    private fun tell(code: Int, stack: String) {
        val status = Bundle()
        status.putString("id", javaClass.simpleName)
        status.putString("class", javaClass.name)
        status.putString("test", "parity")
        status.putInt("numtests", 1)
        status.putInt("current", 1)
        if (code == FAILED) status.putString("stack", stack)
        sendStatus(code, status)
    }
}
