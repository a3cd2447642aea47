package ai.satchel.sample

import android.content.ContentProvider
import android.content.ContentValues
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException

private const val AUTHORITY = "ai.satchel.sample.reports"
private val NAME = Regex("parity-[a-z0-9-]+\\.json")

/** Lets another app read a report that a person has shared with it, and nothing else. */
class ReportProvider : ContentProvider() {
    override fun onCreate() = true

    override fun getType(uri: Uri) = "application/json"

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        if (mode != "r") throw FileNotFoundException("reports are for reading")
        return ParcelFileDescriptor.open(file(uri), ParcelFileDescriptor.MODE_READ_ONLY)
    }

    override fun query(
        uri: Uri,
        columns: Array<String>?,
        selection: String?,
        arguments: Array<String>?,
        order: String?,
    ): Cursor {
        val known = mapOf<String, Any>(
            OpenableColumns.DISPLAY_NAME to file(uri).name,
            OpenableColumns.SIZE to file(uri).length(),
        )
        val asked = (columns ?: known.keys.toTypedArray()).filter { it in known }
        return MatrixCursor(asked.toTypedArray()).apply { addRow(asked.map { known[it] }) }
    }

    override fun insert(uri: Uri, values: ContentValues?): Uri? = throw UnsupportedOperationException()

    override fun update(uri: Uri, values: ContentValues?, selection: String?, arguments: Array<String>?): Int =
        throw UnsupportedOperationException()

    override fun delete(uri: Uri, selection: String?, arguments: Array<String>?): Int =
        throw UnsupportedOperationException()

    private fun file(uri: Uri): File {
        val name = uri.lastPathSegment.orEmpty()
        val application = context!!.applicationContext as SampleApplication
        val file = File(application.state.places.reports, name)
        if (uri.pathSegments.size != 1 || !NAME.matches(name) ||
            !file.isFile
        ) {
            throw FileNotFoundException("no report $name")
        }
        return file
    }

    companion object {
        fun uriOf(report: File): Uri =
            Uri.Builder().scheme("content").authority(AUTHORITY).appendPath(report.name).build()
    }
}
