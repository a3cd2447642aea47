package ai.satchel.core

import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val TOP = 32
private const val GOLDEN_SCHEMA = 1L
private const val FOLDER = "golden"

/** The sets of golden data: the original model, and the same program with the bundle's weights. */
enum class SetName { reference, weights }

class GoldenPrompt(val text: String?, val ids: IntArray, val continuation: IntArray) {
    /** The ids whose logits are recorded: the prompt, then its continuation without the last id. */
    val sequence: IntArray get() = ids + continuation.copyOf(continuation.size - 1)
}

/** Rows describe the logits after each id of the prompts' sequences, prompts one after the other. */
class GoldenSet(
    /** [positions, top], falling. */
    val topIds: IntArray,
    val topLogits: FloatArray,
    /** [positions], over the ids that are not among the top; -Infinity where there are none. */
    val restLogsumexp: FloatArray,
    /** [prompts, steps]: the set's own greedy answers, their second choices, by how much the first was preferred. */
    val greedyIds: IntArray,
    val greedyRunnerUp: IntArray,
    val greedyGap: FloatArray,
)

/** What the reference model says to fixed prompts. See runtime/FORMAT.md, "golden/". */
class Golden(val top: Int, val prompts: List<GoldenPrompt>, val sets: Map<SetName, GoldenSet>) {
    /** Golden row at which each prompt begins. */
    val starts: List<Int> = prompts.runningFold(0) { row, prompt -> row + prompt.sequence.size }.dropLast(1)
}

private class ArrayFile(val file: String, val shape: List<Int>)

private class Structure(
    val vocabSize: Int,
    val prompts: List<GoldenPrompt>,
    val sets: Map<String, Map<String, ArrayFile>>,
)

private val prompt = record("text", "ids", "continuation", "?picture") { f ->
    f.optional("picture", orNull(text)) // of a model that sees, which this app does not run
    GoldenPrompt(
        f("text", orNull(text)),
        f("ids", list(small)).toIntArray(),
        f("continuation", list(small)).toIntArray(),
    )
}

private val arrayFile = record("file", "shape") { f -> ArrayFile(f("file", text), f("shape", list(small))) }

private val structure = record("schema_version", "vocab_size", "prompts", "sets", "?layers") { f ->
    Structure(f("vocab_size", small), f("prompts", list(prompt)), f("sets", dictionary(dictionary(arrayFile))))
}

/** Array -> how its numbers are stored. */
private val ARRAYS =
    mapOf(
        "top_ids" to "i32",
        "top_logits" to "f32",
        "logsumexp" to "f32",
        "rest_logsumexp" to "f32",
        "greedy_ids" to "i32",
        "greedy_runner_up" to "i32",
        "greedy_gap" to "f32",
    )

/** Reads `golden/`. Throws a BundleError: a file is missing, of the wrong size, or does not fit the others. */
fun readGolden(bundle: Bundle): Golden {
    if (!bundle.has("$FOLDER/golden.json")) {
        throw bundleError(
            "the bundle has no golden data",
            wanted = "golden/golden.json",
            hint = "export the bundle again",
        )
    }
    val value = parseJson(bundle.read("$FOLDER/golden.json"), "golden.json")
    val version = objectOf(value, "golden.json")["schema_version"]
    if (version !=
        GOLDEN_SCHEMA
    ) {
        throw bundleError("golden.json is of an unknown schema", got = version ?: "none", wanted = GOLDEN_SCHEMA)
    }
    val read = structure(value, "golden.json")
    check(read, bundle.manifest.tokens.vocabSize)
    val top = minOf(TOP, read.vocabSize)
    val sets = SetName.entries.filter {
        it.name in read.sets
    }.associateWith { SetReader(bundle, read, it.name, top).read() }
    return Golden(top, read.prompts, sets)
}

private fun check(read: Structure, vocabulary: Int) {
    if (read.vocabSize != vocabulary) {
        throw bundleError("golden data of another vocabulary", got = read.vocabSize, wanted = vocabulary)
    }
    val known = SetName.entries.map { it.name }
    if (read.prompts.isEmpty() || "reference" !in read.sets || read.sets.keys.any { it !in known }) {
        throw bundleError("golden.json lacks the reference or has unknown sets", got = read.sets.keys, wanted = known)
    }
    for (prompt in read.prompts) {
        val all = prompt.ids + prompt.continuation
        if (prompt.ids.isEmpty() || prompt.continuation.isEmpty() || all.any { it !in 0 until vocabulary }) {
            throw bundleError("a golden prompt is empty or outside the vocabulary", wanted = "0..${vocabulary - 1}")
        }
    }
    if (read.prompts.map {
            it.continuation.size
        }.toSet().size > 1
    ) {
        throw bundleError("golden continuations differ in length")
    }
}

private class SetReader(
    private val bundle: Bundle,
    private val read: Structure,
    private val set: String,
    private val top: Int,
) {
    private val files = read.sets.getValue(set)

    fun read(): GoldenSet {
        if (files.keys != ARRAYS.keys) {
            throw bundleError("the golden set '$set' is incomplete", got = files.keys, wanted = ARRAYS.keys)
        }
        val rows = read.prompts.sumOf { it.sequence.size }
        val (prompts, steps) = read.prompts.size to read.prompts[0].continuation.size
        finite("logsumexp", rows)
        return GoldenSet(
            topIds = ids("top_ids", rows, top),
            topLogits = finite("top_logits", rows, top),
            restLogsumexp = floats("rest_logsumexp", rows),
            greedyIds = ids("greedy_ids", prompts, steps),
            greedyRunnerUp = ids("greedy_runner_up", prompts, steps),
            greedyGap = finite("greedy_gap", prompts, steps),
        )
    }

    private fun ids(key: String, vararg shape: Int): IntArray {
        val found = numbers(key, shape).asIntBuffer().let { buffer ->
            IntArray(buffer.remaining()).also { buffer.get(it) }
        }
        if (found.any { it !in 0 until read.vocabSize }) {
            throw bundleError("golden $key is outside the vocabulary", wanted = "0..${read.vocabSize - 1}")
        }
        return found
    }

    private fun floats(key: String, vararg shape: Int): FloatArray =
        numbers(key, shape).asFloatBuffer().let { buffer -> FloatArray(buffer.remaining()).also { buffer.get(it) } }

    private fun finite(key: String, vararg shape: Int): FloatArray {
        val found = floats(key, *shape)
        if (!found.all {
                it.isFinite()
            }
        ) {
            throw bundleError("golden $key holds NaN or infinity", hint = "export the bundle again")
        }
        return found
    }

    private fun numbers(key: String, shape: IntArray): ByteBuffer {
        val given = files.getValue(key)
        val expected = "$set.$key.${ARRAYS[key]}"
        if (given.file != expected || given.shape != shape.toList()) {
            val wanted = "$expected of ${shape.toList()}"
            throw bundleError(
                "golden.json names an unexpected array",
                got = "${given.file} of ${given.shape}",
                wanted = wanted,
            )
        }
        val bytes = bundle.read("$FOLDER/$expected")
        val size = 4 * shape.fold(1, Int::times)
        if (bytes.size !=
            size
        ) {
            throw bundleError("golden/$expected is of the wrong size", got = bytes.size, wanted = size)
        }
        return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
    }
}
