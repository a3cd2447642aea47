package ai.satchel.core.tokenizer

/** Pieces of text -> ids. */
internal interface Model {
    /** Token -> id. */
    val vocabulary: Map<String, Int>

    /** Appends the ids of a piece; throws IllegalArgumentException where there is none for a part of it. */
    fun encode(piece: String, ids: IdList)
}

/** Throws IllegalArgumentException for a model that is not known here. */
internal fun modelOf(part: Part): Model = when (part.string("type")) {
    "Unigram" -> Unigram(part)
    "BPE", null -> Bpe(part)
    else -> part.unknown("model")
}

/** A growing list of ids. */
internal class IdList {
    private var ids = IntArray(64)
    var size = 0
        private set

    fun add(id: Int) {
        if (size == ids.size) ids = ids.copyOf(2 * size)
        ids[size++] = id
    }

    fun toArray(): IntArray = ids.copyOf(size)
}

/** A hash table of numbers without an object for each: merges of a large tokenizer are half a million. */
internal class LongTable(expected: Int) {
    private var keys = LongArray(Integer.highestOneBit(maxOf(expected, 4)) shl 2)
    private var values = LongArray(keys.size)
    private var size = 0

    init {
        keys.fill(EMPTY)
    }

    /** The value of a key, or -1. */
    operator fun get(key: Long): Long {
        val place = place(key)
        return if (keys[place] == key) values[place] else -1
    }

    operator fun set(key: Long, value: Long) {
        if (2 * size > keys.size) grow()
        val place = place(key)
        if (keys[place] == EMPTY) size++
        keys[place] = key
        values[place] = value
    }

    private fun place(key: Long): Int {
        val mixed = key * -0x61c8864680b583ebL
        var place = (mixed ushr 32).toInt() and keys.size - 1
        while (keys[place] != EMPTY && keys[place] != key) place = place + 1 and keys.size - 1
        return place
    }

    private fun grow() {
        val (oldKeys, oldValues) = keys to values
        keys = LongArray(2 * oldKeys.size).apply { fill(EMPTY) }
        values = LongArray(keys.size)
        for ((i, key) in oldKeys.withIndex()) {
            if (key == EMPTY) continue
            val place = place(key)
            keys[place] = key
            values[place] = oldValues[i]
        }
    }

    private companion object {
        const val EMPTY = Long.MIN_VALUE
    }
}

/** Ids of the tokens <0x00> to <0xFF>, or null where one is missing. */
internal fun byteIds(vocabulary: Map<String, Int>): IntArray? {
    val ids = (0..255).map { vocabulary["<0x%02X>".format(it)] ?: return null }
    return ids.toIntArray()
}
