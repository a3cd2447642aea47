package ai.satchel.core

/** What a loaded model does, whatever runs it. Of one thread at a time. */
interface Backend : AutoCloseable {
    /** Ids in the cache. */
    val position: Int

    /** Empties the cache. */
    fun reset()

    /** Appends ids in one call; the logits after the last, [vocab]. Throws a UsageError beyond the context. */
    fun prefill(ids: IntArray): FloatArray

    /** Appends one id; the logits after it, [vocab]. */
    fun step(id: Int): FloatArray

    /** Frees the model. */
    override fun close()
}
