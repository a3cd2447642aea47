package ai.satchel.core.tokenizer

private const val UNKNOWN_PENALTY = 10.0

/** SentencePiece's unigram model: the cut of a text whose pieces have the largest sum of scores. */
internal class Unigram(part: Part) : Model {
    private val scores: DoubleArray
    override val vocabulary: Map<String, Int>
    private val unknown: Int?
    private val unknownScore: Double
    private val bytes: IntArray?
    private val trie: Trie

    init {
        val pieces = part.list("vocab").map { it as List<*> }
        scores = DoubleArray(pieces.size) { (pieces[it][1] as Number).toDouble() }
        vocabulary = HashMap<String, Int>(2 * pieces.size).apply {
            for ((id, piece) in pieces.withIndex()) put(piece[0] as String, id)
        }
        unknown = part.integer("unk_id")
        unknownScore = (scores.minOrNull() ?: 0.0) - UNKNOWN_PENALTY
        bytes = if (part.flag("byte_fallback")) byteIds(vocabulary) else null
        trie = Trie(vocabulary)
    }

    override fun encode(piece: String, ids: IdList) {
        val cuts = bestCut(piece)
        var at = 0
        while (at < cuts.size) {
            val (start, id) = cuts[at++]
            if (id != unknown) {
                ids.add(id)
                continue
            }
            // Neighbours that are unknown are one piece.
            while (at < cuts.size && cuts[at].second == unknown) at++
            addUnknown(piece.substring(start, if (at < cuts.size) cuts[at].first else piece.length), ids)
        }
    }

    private fun addUnknown(text: String, ids: IdList) {
        val known = vocabulary[text]
        when {
            known != null -> ids.add(known)
            bytes != null -> for (byte in text.toByteArray()) ids.add(bytes[byte.toInt() and 0xff])
            else -> ids.add(requireNotNull(unknown))
        }
    }

    /** Where the pieces begin, and their ids. */
    private fun bestCut(text: String): List<Pair<Int, Int>> {
        val best = DoubleArray(text.length + 1)
        val start = IntArray(text.length + 1) { -1 }
        val id = IntArray(text.length + 1)
        fun offer(from: Int, to: Int, piece: Int, score: Double) {
            val sum = best[from] + score
            if (start[to] >= 0 && sum <= best[to]) return
            best[to] = sum
            start[to] = from
            id[to] = piece
        }
        var at = 0
        while (at < text.length) {
            val next = at + Character.charCount(text.codePointAt(at))
            var alone = false
            trie.search(text, at) { end, piece ->
                offer(at, end, piece, scores[piece])
                alone = alone || end == next
            }
            if (!alone) {
                offer(
                    at,
                    next,
                    requireNotNull(unknown) {
                        "no id for '${text.substring(at, next)}'"
                    },
                    unknownScore,
                )
            }
            at = next
        }
        return generateSequence(text.length) {
            start[it]
        }.takeWhile { it > 0 }.map { start[it] to id[it] }.toList().asReversed()
    }
}

/** Finds the tokens that begin at a place. */
private class Trie(tokens: Map<String, Int>) {
    private val children = LongTable(4 * tokens.size) // node and character -> node
    private val ids = ArrayList<Int>().apply { add(-1) } // of each node, or -1

    init {
        for ((token, id) in tokens) if (token.isNotEmpty()) ids[token.fold(0, ::child)] = id
    }

    fun search(text: String, from: Int, found: (end: Int, id: Int) -> Unit) {
        var node = 0
        for (at in from until text.length) {
            node = children[key(node, text[at])].toInt()
            if (node < 0) return
            if (ids[node] >= 0) found(at + 1, ids[node])
        }
    }

    private fun child(node: Int, character: Char): Int {
        val key = key(node, character)
        if (children[key] < 0) {
            children[key] = ids.size.toLong()
            ids.add(-1)
        }
        return children[key].toInt()
    }

    private fun key(node: Int, character: Char): Long = node.toLong() shl 16 or character.code.toLong()
}
