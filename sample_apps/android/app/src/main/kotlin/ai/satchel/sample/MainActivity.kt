package ai.satchel.sample

import ai.satchel.core.usageError
import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.os.Bundle
import android.view.View
import android.view.WindowManager
import android.widget.Button
import android.widget.ProgressBar
import android.widget.RadioButton
import android.widget.RadioGroup
import android.widget.TextView

private const val PICK_FOLDER = 1

/** The one window: three screens, of which one is shown, with progress and errors above them. */
class MainActivity : Activity() {
    private lateinit var state: AppState
    private lateinit var bundleScreen: BundleScreen
    private lateinit var chatScreen: ChatScreen
    private lateinit var parityScreen: ParityScreen

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.main)
        state = (application as SampleApplication).state
        bundleScreen = BundleScreen(view(R.id.bundle_screen), state) { pickFolder() }
        chatScreen = ChatScreen(view(R.id.chat_screen), state)
        parityScreen = ParityScreen(view(R.id.parity_screen), state)
        view<Button>(R.id.cancel).setOnClickListener { state.cancel() }
        for ((screen, id) in TABS) view<RadioButton>(id).setOnClickListener { state.show(screen) }
    }

    override fun onStart() {
        super.onStart()
        state.observer = ::render
        state.listBundles()
        render()
    }

    override fun onStop() {
        state.observer = {}
        super.onStop()
    }

    @Deprecated("the framework has no other way without AndroidX")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val tree = data?.data
        if (request != PICK_FOLDER || result != RESULT_OK || tree == null) return
        state.open { Place.Picked(TreeSource(contentResolver, tree)) }
    }

    private fun pickFolder() {
        try {
            startActivityForResult(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), PICK_FOLDER)
        } catch (error: ActivityNotFoundException) {
            state.fail(usageError("this device has no app to choose folders with", hint = "push the bundle by adb"))
        }
    }

    private fun render() {
        renderTop()
        renderProgress()
        view<View>(R.id.bundle_screen).shown = state.screen == Screen.Bundle
        view<View>(R.id.chat_screen).shown = state.screen == Screen.Chat
        view<View>(R.id.parity_screen).shown = state.screen == Screen.Parity
        bundleScreen.render()
        chatScreen.render()
        parityScreen.render()
    }

    private fun renderTop() {
        for ((screen, id) in TABS) view<RadioButton>(id).isEnabled = screen == Screen.Bundle || state.loaded != null
        view<RadioGroup>(R.id.screens).check(TABS.getValue(state.screen))
        view<TextView>(R.id.model).textIfNew = state.loaded?.let(::described) ?: getString(R.string.no_bundle)
        val failure = state.failure
        val error = view<TextView>(R.id.error)
        error.shown = failure != null
        error.textIfNew = failure?.let {
            if (it.unexpected) getString(R.string.unexpected, it.message) else it.message
        }.orEmpty()
    }

    private fun renderProgress() {
        val working = state.working
        view<View>(R.id.progress).shown = working != null
        // While something is computed nobody touches the screen, and a device that sleeps computes no more.
        if (state.busy) {
            window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        } else {
            window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        }
        if (working == null) return
        val known = working.total > 0
        val stage = getString(working.stage)
        val bar = view<ProgressBar>(R.id.progress_bar)
        bar.isIndeterminate = !known
        if (known) bar.progress = (1000 * working.done / working.total).toInt()
        // Told in steps of ten, as a screen reader reads each change.
        val percent = if (known) (10 * working.done / working.total).toInt() * 10 else 0
        view<TextView>(R.id.progress_text).textIfNew =
            if (known) getString(R.string.progress_percent, stage, percent) else stage
    }

    private fun described(loaded: Loaded): String {
        val (bundle, engine) = loaded.engine.bundle to loaded.engine
        val manifest = bundle.manifest
        return getString(
            R.string.described,
            manifest.model.modelId,
            manifest.plan.device,
            manifest.scheme,
            megabytes(bundle.bytes),
            megabytes(loaded.memory),
            engine.loadSeconds,
            engine.runtime,
        )
    }

    private companion object {
        val TABS = mapOf(
            Screen.Bundle to R.id.show_bundle,
            Screen.Chat to R.id.show_chat,
            Screen.Parity to R.id.show_parity,
        )
    }
}
