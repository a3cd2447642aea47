import Foundation

/// The golden data of a bundle: what the reference model says to fixed prompts. See runtime/FORMAT.md, "golden/".
public struct Golden: Sendable {
    public enum SetName: String, CaseIterable, Sendable { case reference, weights }

    public struct Prompt: Sendable {
        public let text: String?
        public let ids: [Int]
        public var continuation: [Int]

        /// The ids whose logits are recorded: the prompt, then its continuation without the last id.
        var sequence: [Int] { ids + continuation.dropLast() }
    }

    /// Rows describe the logits after each id of the prompts' sequences, prompts one after the other.
    public struct Answers: Sendable {
        /// [positions, top], falling.
        let topIds: [Int32]
        let topLogits: [Float]
        /// [positions], over the ids that are not among the top; -infinity where there are none.
        let restLogsumexp: [Float]
        /// [prompts, steps]: the set's own greedy answers, the second choices, and by how much the first was preferred.
        let greedyIds: [Int32]
        let greedyRunnerUp: [Int32]
        let greedyGap: [Float]
    }

    public let vocabSize: Int
    public let top: Int
    public let prompts: [Prompt]
    public let sets: [SetName: Answers]

    var steps: Int { prompts[0].continuation.count }

    /// The golden row at which each prompt begins.
    var starts: [Int] {
        prompts.reduce(into: [0]) { $0.append($0.last! + $1.sequence.count) }.dropLast()
    }
}

private let mostTop = 32
private let arrays: KeyValuePairs = [
    "top_ids": "i32", "top_logits": "f32", "logsumexp": "f32", "rest_logsumexp": "f32", "greedy_ids": "i32",
    "greedy_runner_up": "i32", "greedy_gap": "f32",
]

extension Golden {
    /// Reads `golden/`. Throws a BundleError: a file is missing, of the wrong size, or does not fit the others.
    public init(_ bundle: ModelBundle) throws {
        guard bundle.has("golden/golden.json") else {
            throw bundleError(
                "the bundle has no golden data", wanted: "golden/golden.json", hint: "export the bundle again")
        }
        let value = try parseJson(bundle.read("golden/golden.json"), "golden.json")
        guard value["schema_version"]?.integer == 1 else {
            throw bundleError(
                "golden.json is of an unknown schema", got: value["schema_version"]?.summary ?? "none", wanted: 1)
        }
        let fields = try Fields(value, "golden.json", ["schema_version", "vocab_size", "prompts", "sets"])
        vocabSize = try fields.integer("vocab_size")
        top = min(mostTop, vocabSize)
        prompts = try fields.list("prompts", readPrompt)
        let named = try fields.dictionary("sets") { value, place in (value, place) }
        try checkPrompts(prompts, named.map(\.key), vocabSize, bundle.manifest.tokens.vocabSize)
        var sets: [SetName: Answers] = [:]
        for (name, (value, place)) in named {
            let files = try SetFiles(bundle, name, value, place, vocabSize)
            sets[SetName(rawValue: name)!] = try files.answers(prompts, top)
        }
        self.sets = sets
    }
}

private func readPrompt(_ value: Json, _ place: String) throws -> Golden.Prompt {
    let fields = try Fields(value, place, ["text", "ids", "continuation"], optional: ["picture"])
    return Golden.Prompt(
        text: try fields.textOrNull("text"), ids: try fields.integers("ids"),
        continuation: try fields.integers("continuation"))
}

private func checkPrompts(_ prompts: [Golden.Prompt], _ sets: [String], _ vocabSize: Int, _ wanted: Int) throws {
    guard vocabSize == wanted else {
        throw bundleError("golden data of another vocabulary", got: vocabSize, wanted: wanted)
    }
    let known = Golden.SetName.allCases.map(\.rawValue)
    guard !prompts.isEmpty, sets.contains("reference"), sets.allSatisfy(known.contains) else {
        throw bundleError("golden.json lacks the reference or has unknown sets", got: sets, wanted: known)
    }
    for prompt in prompts {
        let inside = (prompt.ids + prompt.continuation).allSatisfy { (0..<vocabSize).contains($0) }
        guard !prompt.ids.isEmpty, !prompt.continuation.isEmpty, inside else {
            throw bundleError("a golden prompt is empty or outside the vocabulary", wanted: "0..\(vocabSize - 1)")
        }
    }
    guard Set(prompts.map(\.continuation.count)).count == 1 else {
        throw bundleError("golden continuations differ in length")
    }
}

/// The files of one set.
private struct SetFiles {
    let bundle: ModelBundle
    let name: String
    let fields: Fields
    let vocabSize: Int

    init(_ bundle: ModelBundle, _ name: String, _ value: Json, _ place: String, _ vocabSize: Int) throws {
        (self.bundle, self.name, self.vocabSize) = (bundle, name, vocabSize)
        fields = try Fields(value, place, arrays.map(\.key))
    }

    func answers(_ prompts: [Golden.Prompt], _ top: Int) throws -> Golden.Answers {
        let rows = prompts.reduce(0) { $0 + $1.sequence.count }
        let answers = [prompts.count, prompts[0].continuation.count]
        _ = try finite("logsumexp", [rows])
        return Golden.Answers(
            topIds: try ids("top_ids", [rows, top]), topLogits: try finite("top_logits", [rows, top]),
            restLogsumexp: floats(try words("rest_logsumexp", [rows])), greedyIds: try ids("greedy_ids", answers),
            greedyRunnerUp: try ids("greedy_runner_up", answers), greedyGap: try finite("greedy_gap", answers))
    }

    private func ids(_ key: String, _ shape: [Int]) throws -> [Int32] {
        let found = try words(key, shape).map { Int32(bitPattern: $0) }
        guard found.allSatisfy({ $0 >= 0 && $0 < vocabSize }) else {
            throw bundleError("golden \(key) is outside the vocabulary", wanted: "0..\(vocabSize - 1)")
        }
        return found
    }

    private func finite(_ key: String, _ shape: [Int]) throws -> [Float] {
        let found = floats(try words(key, shape))
        guard found.allSatisfy(\.isFinite) else {
            throw bundleError("golden \(key) holds NaN or infinity", hint: "export the bundle again")
        }
        return found
    }

    private func floats(_ words: [UInt32]) -> [Float] { words.map { Float(bitPattern: $0) } }

    private func words(_ key: String, _ shape: [Int]) throws -> [UInt32] {
        let kind = arrays.first { $0.key == key }!.value
        let expected = "\(name).\(key).\(kind)"
        let (file, given) = try fields.nested(key) { value, place in
            let fields = try Fields(value, place, ["file", "shape"])
            return (try fields.text("file"), try fields.integers("shape"))
        }
        guard file == expected, given == shape else {
            throw bundleError("golden.json names an unexpected array", got: (file, given), wanted: (expected, shape))
        }
        let data = try bundle.read("golden/\(file)")
        guard data.count == 4 * shape.reduce(1, *) else {
            throw bundleError("golden/\(file) is of the wrong size", got: data.count, wanted: 4 * shape.reduce(1, *))
        }
        return data.withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map {
                UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))
            }
        }
    }
}
