package ai.satchel.core.tokenizer

import java.util.PriorityQueue

/** Byte-pair encoding: the pair that was merged first in training is merged first; of equal ones the leftmost. */
internal class Bpe(part: Part) : Model {
    override val vocabulary: Map<String, Int> = part.map("vocab").entries.associate { (token, id) ->
        token as String to (id as Long).toInt()
    }
    private val prefix = part.string("continuing_subword_prefix").orEmpty()
    private val suffix = part.string("end_of_word_suffix").orEmpty()
    private val unknown = part.string("unk_token")?.let { vocabulary[it] }
    private val fuseUnknown = part.flag("fuse_unk")
    private val bytes = if (part.flag("byte_fallback")) byteIds(vocabulary) else null
    private val wholeWords = part.flag("ignore_merges")

    /** Pair of ids -> rank and the id of both together. */
    private val merges: LongTable

    init {
        val list = part.list("merges")
        merges = LongTable(list.size)
        for ((rank, merge) in list.withIndex()) {
            val (left, right) = pairOf(merge)
            merges[pair(idOf(left), idOf(right))] = pair(rank, idOf(left + right.removePrefix(prefix)))
        }
    }

    override fun encode(piece: String, ids: IdList) {
        val whole = if (wholeWords) vocabulary[piece] else null
        if (whole != null) ids.add(whole) else Word(symbols(piece)).merged(ids)
    }

    /** The ids of a piece's characters. */
    private fun symbols(piece: String): IntArray {
        val ids = IdList()
        var wasUnknown = false
        var at = 0
        while (at < piece.length) {
            val end = at + Character.charCount(piece.codePointAt(at))
            val token =
                (if (at > 0) prefix else "") + piece.substring(at, end) + if (end == piece.length) suffix else ""
            val id = vocabulary[token]
            val spelled = if (id == null) bytes else null
            when {
                id != null -> ids.add(id)
                spelled != null -> for (byte in token.toByteArray()) ids.add(spelled[byte.toInt() and 0xff])
                unknown == null -> Unit // the reference drops such characters
                !(fuseUnknown && wasUnknown) -> ids.add(unknown)
            }
            wasUnknown = id == null && spelled == null
            at = end
        }
        return ids.toArray()
    }

    /** Symbols in a linked list, in which neighbours are merged. */
    private inner class Word(private val ids: IntArray) {
        private val next = IntArray(ids.size) { if (it + 1 < ids.size) it + 1 else -1 }
        private val previous = IntArray(ids.size) { it - 1 }
        private val queue = PriorityQueue<Long>() // rank, then place

        fun merged(out: IdList) {
            for (place in 0 until ids.size - 1) offer(place)
            while (true) {
                val best = queue.poll() ?: break
                val place = best.toInt()
                val merge = mergeAt(place)
                if (merge >= 0 && merge ushr 32 == best ushr 32) join(place, merge.toInt())
            }
            for (id in ids) if (id >= 0) out.add(id)
        }

        private fun join(place: Int, id: Int) {
            val gone = next[place]
            ids[place] = id
            ids[gone] = -1
            next[place] = next[gone]
            if (next[place] >= 0) previous[next[place]] = place
            offer(place)
            if (previous[place] >= 0) offer(previous[place])
        }

        private fun offer(place: Int) {
            val merge = mergeAt(place)
            if (merge >= 0) queue.add(merge ushr 32 shl 32 or place.toLong())
        }

        private fun mergeAt(place: Int): Long =
            if (ids[place] < 0 || next[place] < 0) -1 else merges[pair(ids[place], ids[next[place]])]
    }

    private fun idOf(token: String): Int =
        vocabulary[token] ?: throw IllegalArgumentException("a merge of the unknown token '$token'")

    private companion object {
        fun pair(high: Int, low: Int): Long = high.toLong() shl 32 or low.toLong()

        /** Newer files have a list of two, older ones a text with a space. */
        fun pairOf(merge: Any?): Pair<String, String> {
            val both = if (merge is List<*>) merge else (merge as String).split(" ", limit = 2)
            require(both.size == 2) { "a merge that is no pair: $merge" }
            return both[0] as String to both[1] as String
        }
    }
}
