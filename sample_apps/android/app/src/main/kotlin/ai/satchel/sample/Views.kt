package ai.satchel.sample

import android.app.Activity
import android.view.View
import android.widget.EditText
import android.widget.TextView
import java.util.Locale

/** The view with this id inside this one. */
@Suppress("UNCHECKED_CAST")
fun <T : View> View.view(id: Int): T {
    val found: View? = findViewById(id)
    return checkNotNull(found) as T
}

fun <T : View> Activity.view(id: Int): T = window.decorView.view(id)

/** Whether a view is there for a person. */
var View.shown: Boolean
    get() = visibility == View.VISIBLE
    set(shown) {
        visibility = if (shown) View.VISIBLE else View.GONE
    }

/** Sets a text only where it differs: a live region would be read again. */
var TextView.textIfNew: CharSequence
    get() = text
    set(new) {
        if (text.toString() != new.toString()) text = new
    }

fun EditText.string(): String = text.toString().trim()

fun megabytes(bytes: Long?): String = if (bytes ==
    null
) {
    "–"
} else {
    String.format(Locale.getDefault(), if (bytes < 10_000_000) "%.1f MB" else "%.0f MB", bytes / 1e6)
}

fun oneDigit(value: Double?): String = if (value == null) "–" else String.format(Locale.getDefault(), "%.1f", value)

fun fourDigits(value: Double?): String = if (value == null) "–" else String.format(Locale.getDefault(), "%.4g", value)
