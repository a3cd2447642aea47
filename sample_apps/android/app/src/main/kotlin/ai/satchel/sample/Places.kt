package ai.satchel.sample

import ai.satchel.core.Bundle
import ai.satchel.core.BundleSource
import ai.satchel.core.BundleStore
import ai.satchel.core.Cancellation
import ai.satchel.core.ChatHistory
import ai.satchel.core.FolderSource
import ai.satchel.core.OpenOptions
import ai.satchel.core.openBundle
import ai.satchel.core.outputError
import ai.satchel.core.reasonOf
import android.content.Context
import java.io.File
import java.io.IOException

/** A bundle that can be opened. */
sealed interface Place {
    val name: String

    /** In the app's assets: copied out of them once. */
    class InApp(val source: AssetSource) : Place {
        override val name get() = source.name
    }

    /** In the app's own storage, checked when it was copied there. */
    class Stored(val folder: File, val bytes: Long) : Place {
        override val name: String get() = folder.name
    }

    /** Where `adb push` puts it: checked each time. */
    class Pushed(val folder: File, val bytes: Long) : Place {
        override val name: String get() = folder.name
    }

    /** A folder that a person has picked: copied once. */
    class Picked(val source: BundleSource) : Place {
        override val name get() = source.name
    }
}

/** Told what is being done, and how many of how many steps are finished; of 0 where nobody knows. */
typealias Progress = (stage: Int, done: Long, total: Long) -> Unit

/** Where this app has its files. */
class Places(private val context: Context) {
    private val store = BundleStore(File(context.filesDir, "bundles"))
    private val pushed: BundleStore? get() = context.getExternalFilesDir(null)?.let { BundleStore(File(it, "bundles")) }
    val history = ChatHistory(File(context.filesDir, "chats.json"))

    init {
        store.folder.mkdirs()
        pushed?.folder?.mkdirs() // so that adb finds it
    }

    /** Removes what an earlier run left in the middle; of the app's start alone, before anything is copied. */
    fun clean() = store.clean()

    /** Where Parity's files go: the folder that `adb pull` can reach, if there is one. */
    val reports: File get() = File(context.getExternalFilesDir(null) ?: context.filesDir, "parity").apply { mkdirs() }

    fun list(): List<Place> {
        val stored = store.list().map { Place.Stored(it.folder, it.bytes) }
        val inApp = AssetSource.all(context.assets).filter { asset ->
            stored.none { it.name == asset.name } || !store.holds(asset)
        }
        return inApp.map {
            Place.InApp(it)
        } + stored + pushed?.list().orEmpty().map { Place.Pushed(it.folder, it.bytes) }
    }

    /** The bundle that `adb push` has put in this app's folder. */
    fun pushed(name: String): File =
        File(pushed?.folder ?: throw outputError("this device has no shared storage now"), name)

    fun delete(place: Place) {
        if (place is Place.Stored) store.remove(place.name)
        if (place is Place.Pushed) pushed?.remove(place.name)
    }

    /** The bundle in a folder, checked; copied there before where need be. */
    fun open(place: Place, progress: Progress, cancellation: Cancellation): Bundle = when (place) {
        is Place.InApp -> openStored(copied(place.source, progress, cancellation))
        is Place.Picked -> openStored(copied(place.source, progress, cancellation))
        is Place.Stored -> openStored(place.folder)
        is Place.Pushed -> openChecked(place.folder, progress, cancellation)
    }

    /** A bundle in a folder, every byte of it checked. */
    fun openChecked(folder: File, progress: Progress, cancellation: Cancellation): Bundle {
        val told = { done: Long, total: Long -> progress(R.string.stage_checking, done, total) }
        return openBundle(FolderSource(folder), OpenOptions(progress = told, cancellation = cancellation))
    }

    private fun openStored(folder: File): Bundle = openBundle(FolderSource(folder), OpenOptions(verify = false))

    private fun copied(source: BundleSource, progress: Progress, cancellation: Cancellation): File {
        if (store.holds(source)) return File(store.folder, source.name)
        return store.add(source, { done, total -> progress(R.string.stage_copying, done, total) }, cancellation)
    }

    /** Writes a report aside and puts it in its place. */
    fun writeReport(name: String, json: String): File {
        val file = File(reports, name)
        val partial = File(reports, ".$name.partial")
        try {
            partial.writeText(json)
            if (!partial.renameTo(file)) throw IOException("$file cannot be replaced")
        } catch (error: IOException) {
            partial.delete()
            throw outputError("the report cannot be written", got = reasonOf(error), hint = "free some space")
        }
        return file
    }
}
