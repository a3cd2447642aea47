package ai.satchel.sample

import ai.satchel.core.BundleSource
import ai.satchel.core.SUFFIX
import android.content.res.AssetManager
import java.io.IOException
import java.io.InputStream

private const val FOLDER = "bundles"

/** A bundle in the app's assets, or in an asset pack that came with it: assets/bundles/<name>.satchel. */
class AssetSource(private val assets: AssetManager, override val name: String) : BundleSource {
    private val root = "$FOLDER/$name"

    override fun list(): Map<String, Long> = HashMap<String, Long>().also { collect(root, it) }

    override fun open(path: String): InputStream = assets.open("$root/$path", AssetManager.ACCESS_STREAMING)

    private fun collect(path: String, found: MutableMap<String, Long>) {
        val inside = assets.list(path).orEmpty()
        if (inside.isEmpty()) found[path.removePrefix("$root/")] = size(path)
        for (name in inside) collect("$path/$name", found)
    }

    private fun size(path: String): Long = try {
        assets.openFd(path).use { it.length }
    } catch (error: IOException) { // compressed, as small files are: it has to be read
        assets.open(path).use { stream ->
            generateSequence { stream.skip(Long.MAX_VALUE / 2).takeIf { it > 0 } }.sum()
        }
    }

    companion object {
        fun all(assets: AssetManager): List<AssetSource> =
            assets.list(FOLDER).orEmpty().filter { it.endsWith(SUFFIX) }.sorted().map { AssetSource(assets, it) }
    }
}
