package ai.satchel.sample

import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView

/** Lists the bundles that are here, and opens one of them or a folder. */
class BundleScreen(private val root: View, private val state: AppState, pickFolder: () -> Unit) {
    private val context = root.context
    private val list = root.view<LinearLayout>(R.id.bundles)
    private val choose = root.view<Button>(R.id.choose_folder)
    private var rendered: List<Place>? = null

    init {
        choose.setOnClickListener { pickFolder() }
    }

    fun render() {
        choose.isEnabled = !state.busy
        if (rendered !== state.bundles) {
            rendered = state.bundles
            list.removeAllViews()
            for (place in state.bundles) list.addView(item(place, list))
            if (state.bundles.isEmpty()) list.addView(note(list))
        }
        for (i in 0 until list.childCount) {
            for (id in listOf(R.id.open, R.id.delete)) setEnabled(list.getChildAt(i), id)
        }
    }

    /** The line that says there are none has no buttons. */
    private fun setEnabled(item: View, id: Int) {
        val button: View? = item.findViewById(id)
        button?.isEnabled = !state.busy
    }

    private fun item(place: Place, parent: ViewGroup): View {
        val item = LayoutInflater.from(context).inflate(R.layout.bundle_item, parent, false)
        val size = when (place) {
            is Place.Stored -> megabytes(place.bytes)
            is Place.Pushed -> megabytes(place.bytes)
            else -> context.getString(R.string.in_app)
        }
        item.view<TextView>(R.id.name).text = "${place.name} ($size)"
        val open = item.view<Button>(R.id.open)
        open.contentDescription = context.getString(R.string.open_what, place.name)
        open.setOnClickListener { state.open { place } }
        val delete = item.view<Button>(R.id.delete)
        delete.contentDescription = context.getString(R.string.delete_what, place.name)
        delete.shown = place !is Place.InApp
        delete.setOnClickListener { state.delete(place) }
        return item
    }

    private fun note(parent: ViewGroup): View {
        val line = LayoutInflater.from(context).inflate(R.layout.line, parent, false) as TextView
        line.setText(R.string.none_yet)
        return line
    }
}
