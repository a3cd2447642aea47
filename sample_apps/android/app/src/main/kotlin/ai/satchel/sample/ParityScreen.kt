package ai.satchel.sample

import ai.satchel.core.Answer
import ai.satchel.core.Comparison
import ai.satchel.core.Limits
import ai.satchel.core.ParityReport
import ai.satchel.core.Route
import ai.satchel.core.Row
import android.content.Intent
import android.view.LayoutInflater
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.TextView
import java.io.File

/** Runs the replay, shows the figures, shares parity-<device>.json. */
class ParityScreen(private val root: View, private val state: AppState) {
    private val context = root.context
    private val device = root.view<EditText>(R.id.device)
    private val prompts = root.view<EditText>(R.id.parity_prompts)
    private val run = root.view<Button>(R.id.run_parity)
    private val share = root.view<Button>(R.id.share)
    private val verdict = root.view<TextView>(R.id.verdict)
    private val figures = root.view<LinearLayout>(R.id.figures)
    private var rendered: ParityReport? = null

    init {
        device.setText(state.device.name)
        run.setOnClickListener { state.runParity(device.string(), prompts.string().toIntOrNull()?.takeIf { it > 0 }) }
        share.setOnClickListener { state.reportFile?.let(::send) }
    }

    fun render() {
        val report = state.report
        run.isEnabled = !state.busy
        share.isEnabled = report != null
        for (id in listOf(R.id.verdict, R.id.figures_explained)) root.view<View>(id).shown = report != null
        if (report === rendered) return
        rendered = report
        figures.removeAllViews()
        if (report == null) return
        verdict.text = verdict(report)
        for (row in report.rows) addLine(line(row), row.passed, row.limit?.reason)
        for ((comparison, answers) in report.answers) {
            for (answer in answers) {
                addLine(
                    line(comparison, answer),
                    true,
                    null,
                )
            }
        }
    }

    private fun verdict(report: ParityReport): String {
        val (prefill, decode) = Route.prefill to Route.decode
        val speeds = arrayOf(prefill, decode).map { oneDigit(report.tokensPerSecond[it]) }
        val failed = report.rows.count { !it.passed }
        val said = if (failed == 0) {
            context.getString(R.string.passed, speeds[0], speeds[1])
        } else {
            context.getString(R.string.failed, failed, speeds[0], speeds[1])
        }
        val skipped = if (report.skipped > 0) context.getString(R.string.skipped, report.skipped) else null
        val written = state.reportFile?.let { context.getString(R.string.written, it.path) }
        return listOfNotNull(said, skipped, written).joinToString("\n")
    }

    private fun line(row: Row): String {
        val said = context.getString(
            R.string.figure_line,
            row.comparison.name,
            row.route,
            row.figure,
            fourDigits(row.value),
        )
        val limit = row.limit ?: return said
        val bound = if (Limits.isMaximum(row.figure)) R.string.figure_limit_most else R.string.figure_limit_least
        val judged = context.getString(if (row.passed) R.string.good else R.string.beyond)
        return context.getString(
            R.string.figure_judged,
            said,
            context.getString(bound, fourDigits(limit.value)),
            judged,
        )
    }

    private fun line(comparison: Comparison, answer: Answer): String {
        val said = context.getString(
            R.string.answer_line,
            comparison.name,
            answer.prompt + 1,
            answer.agreed,
            answer.steps,
        )
        val parted = answer.parted ?: return said
        return context.getString(R.string.answer_parted, said, parted.got, parted.wanted, fourDigits(parted.gap))
    }

    private fun addLine(text: String, good: Boolean, reason: String?) {
        val line = LayoutInflater.from(context).inflate(R.layout.line, figures, false) as TextView
        line.text = if (reason == null || good) text else "$text: $reason"
        if (!good) line.setTextColor(context.getColor(R.color.error))
        figures.addView(line)
    }

    private fun send(file: File) {
        val intent = Intent(Intent.ACTION_SEND)
            .setType("application/json")
            .putExtra(Intent.EXTRA_STREAM, ReportProvider.uriOf(file))
            .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
        context.startActivity(Intent.createChooser(intent, context.getString(R.string.share)))
    }
}
