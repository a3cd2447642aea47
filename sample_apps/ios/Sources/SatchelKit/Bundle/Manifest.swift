import Foundation

/// manifest.json, as runtime/FORMAT.md describes it; runtime/manifest.py is its twin.
public struct Manifest: Sendable {
    public let model: ModelInfo
    public let device: String
    public let entry: ModelEntry
    /// Of the weights: "palette", "int4", "int8", "fp16", "fp32" or "source".
    public let scheme: String
    /// Canonical names of the matrices.
    public let matrices: [String]
    public let tokens: TokenRules
    public let generation: GenerationDefaults
    public let files: [FileEntry]
    public let alsoFor: [String]
}

public struct ModelInfo: Sendable {
    public let id: String
    public let family: String
    public let author: String
    public let license: String
    public let licenseText: String
    public let parameters: Int
}

public enum ModelFormat: String, CaseIterable, Sendable {
    case coreml, onnx, executorch
}

public enum TensorDimension: Sendable, Equatable {
    case fixed(Int)
    /// The name of a dynamic dimension.
    case named(String)

    var fixed: Int? { if case .fixed(let length) = self { length } else { nil } }
}

public struct TensorSpec: Sendable, Equatable {
    public let name: String
    public let shape: [TensorDimension]
    /// numpy's name, such as "float16".
    public let dtype: String
}

/// One call of the chain that a model of several packages is.
public struct ChunkEntry: Sendable {
    public let path: String
    /// "decode" and, where there is one, "prefill" -> the package's function.
    public let functions: [String: String]
    public let firstLayer: Int
    /// 0 for a function that only looks up ids.
    public let layers: Int
    public let inputs: [TensorSpec]
    public let outputs: [TensorSpec]
    public let states: [TensorSpec]
}

public struct ModelEntry: Sendable {
    public let format: ModelFormat
    public let path: String
    public let contextLength: Int
    /// Ids of one prefill call; 0 where any number may be given.
    public let prefillLength: Int
    public let inputs: [TensorSpec]
    public let outputs: [TensorSpec]
    public let states: [TensorSpec]
    public let options: JsonObject
    public let chunks: [ChunkEntry]?
    /// Of a model that sees, which this app does not run.
    public let vision: Json?

    /// The model file, or the packages of all chunks, each once.
    public var paths: [String] { chunks.map { Set($0.map(\.path)).sorted() } ?? [path] }

    public func option(_ name: String) -> String? { options[name]?.string }
}

public struct TokenRules: Sendable {
    /// Length of a row of logits.
    public let vocabSize: Int
    public let bosId: Int?
    public let prependBos: Bool
    public let stopIds: [Int]
}

public struct GenerationDefaults: Sendable {
    public let maxNewTokens: Int
    public let sampling: Sampling
}

public struct FileEntry: Sendable {
    public let path: String
    public let bytes: Int
    public let sha256: String
}

extension Manifest {
    static let schemaVersion = 1

    /// Throws a BundleError: of another schema, or not exactly as FORMAT.md says.
    public init(bytes: Data) throws {
        let value = try parseJson(bytes, "manifest.json")
        guard value["schema_version"]?.integer == Self.schemaVersion else {
            throw bundleError(
                "the bundle is of an unknown schema", got: value["schema_version"]?.summary ?? "none",
                wanted: Self.schemaVersion, hint: "use the app of the Satchel that wrote it, or export it again")
        }
        self = try readManifest(value)
        try check()
    }

    private func check() throws {
        try checkFiles()
        for path in entry.paths {
            try checkPath(path)
            guard files.contains(where: { $0.path == path || $0.path.hasPrefix(path + "/") }) else {
                throw bundleError("the model file is not among the files", got: path, hint: "export the bundle again")
            }
        }
        if let chunks = entry.chunks { try checkChunks(chunks, of: self) }
        guard entry.contextLength >= 1, entry.prefillLength >= 0 else {
            throw bundleError("a context or prefill length is out of range", got: entry.contextLength, wanted: ">= 1")
        }
        let ids = tokens.stopIds + (tokens.bosId.map { [$0] } ?? [])
        guard tokens.vocabSize >= 1, ids.allSatisfy({ (0..<tokens.vocabSize).contains($0) }) else {
            throw bundleError("token ids lie outside the vocabulary", got: ids, wanted: "0..\(tokens.vocabSize - 1)")
        }
        if tokens.prependBos && tokens.bosId == nil {
            throw bundleError("the manifest wants a bos id in front and names none")
        }
    }

    private func checkFiles() throws {
        var seen = Set<String>()
        for file in files {
            try checkPath(file.path)
            let isNew = seen.insert(file.path.lowercased()).inserted
            guard isNew, !["manifest.json", "parity.json"].contains(file.path) else {
                throw bundleError("a file is listed twice or may not be listed", got: file.path)
            }
            let hexadecimal = file.sha256.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
            guard file.bytes >= 0, file.sha256.utf8.count == 64, hexadecimal else {
                throw bundleError("size or sha256 of \(file.path) is impossible", got: (file.bytes, file.sha256))
            }
        }
    }
}

/// Refuses what would lie outside the bundle, or is not read alike by every system.
func checkPath(_ path: String) throws {
    let parts = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).map { String($0)! }
    let badPart = parts.contains { ["", ".", ".."].contains($0) || $0.utf8.count > 255 }
    let badCharacter = path.unicodeScalars.contains {
        "\\:*?\"<>|".unicodeScalars.contains($0) || $0.value < 32 || $0.value == 127
    }
    if badPart || badCharacter {
        throw bundleError("a path points outside the bundle or is not portable", got: path, wanted: "a/b.c")
    }
}
