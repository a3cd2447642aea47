import Foundation

/// An opened bundle: every file is the one that was exported. See runtime/FORMAT.md, "Rules for the whole folder".
public struct ModelBundle: Sendable {
    public let folder: URL
    public let manifest: Manifest
    /// sha256 of manifest.json, which stands for the whole bundle.
    public let id: String
    private let manifestBytes: Int

    private static let unlisted: Set = ["manifest.json", "parity.json"]
    private static let ignored = ".DS_Store"  // left by the Finder wherever it looks
    private static let largestManifest = 16 << 20  // bytes; a real one has some 60 kB

    /// Opens a bundle and checks that it is whole. Nothing in it is executed.
    ///
    /// verify: hash every file. Without it names and sizes are still checked, for a bundle that was hashed before.
    /// progress: told the bytes that are done and all; throws to cancel. Throws a BundleError.
    public init(folder: URL, verify: Bool = true, progress: (Int, Int) throws -> Void = { _, _ in }) throws {
        let bytes = try Self.readManifest(folder)
        self.folder = folder
        manifest = try Manifest(bytes: bytes)
        manifestBytes = bytes.count
        var hash = Sha256()
        hash.update(bytes)
        id = hash.hexadecimal()
        try checkNames(try filesBelow(folder))
        if verify { try checkHashes(progress) }
    }

    public var name: String { folder.lastPathComponent }

    /// Of all files, the manifest included.
    public var bytes: Int { listedBytes + manifestBytes }

    private var listedBytes: Int { manifest.files.reduce(0) { $0 + $1.bytes } }

    public func has(_ path: String) -> Bool { manifest.files.contains { $0.path == path } }

    public func url(_ path: String) -> URL { folder.appendingPathComponent(path) }

    /// A listed file. Throws a BundleError.
    public func read(_ path: String) throws -> Data {
        guard let entry = manifest.files.first(where: { $0.path == path }) else {
            throw bundleError("the bundle has no such file", got: path, hint: "export the bundle again")
        }
        let data: Data
        do {
            data = try Data(contentsOf: url(path))
        } catch {
            throw bundleError("\(path) cannot be read", got: reason(of: error), hint: "copy the bundle again")
        }
        guard data.count == entry.bytes else { throw altered(entry, "size", data.count, entry.bytes) }
        return data
    }

    /// A listed UTF-8 file, or nil if the bundle has none of that name.
    public func text(_ path: String) throws -> String? {
        guard has(path) else { return nil }
        let bytes = [UInt8](try read(path))
        guard isUtf8(bytes) else {
            throw bundleError("\(path) cannot be read as text", wanted: "UTF-8", hint: "export the bundle again")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func readManifest(_ folder: URL) throws -> Data {
        let hint = "give the folder <model>-<device>.satchel that `satchel export` wrote"
        let url = folder.appendingPathComponent("manifest.json")
        let values = try? url.resourceValues(forKeys: [.fileSizeKey, .isRegularFileKey])
        if let size = values?.fileSize, size > largestManifest {
            throw bundleError("manifest.json is too large", got: size, hint: hint)
        }
        do {
            return try Data(contentsOf: url)
        } catch {
            throw bundleError("not a bundle: manifest.json cannot be read", got: reason(of: error), hint: hint)
        }
    }

    private func checkNames(_ found: [String: Int]) throws {
        let hint = "copy the bundle again, or export it again"
        let missing = manifest.files.map(\.path).filter { found[$0] == nil }
        guard missing.isEmpty else {
            throw bundleError("files are missing from the bundle", got: "no \(missing.prefix(5))", hint: hint)
        }
        let listed = Set(manifest.files.map(\.path))
        let extra = found.keys.filter { path in
            !listed.contains(path) && !Self.unlisted.contains(path) && path.split(separator: "/").last! != Self.ignored
        }
        guard extra.isEmpty else {
            throw bundleError("files that the manifest does not list", got: extra.sorted().prefix(5), hint: hint)
        }
        for entry in manifest.files where found[entry.path] != entry.bytes {
            throw altered(entry, "size", found[entry.path]!, entry.bytes)
        }
    }

    private func checkHashes(_ progress: (Int, Int) throws -> Void) throws {
        var done = 0
        try progress(0, listedBytes)
        for entry in manifest.files {
            let found = try sha256(of: url(entry.path)) { count in
                done += count
                try progress(done, listedBytes)
            }
            guard found == entry.sha256 else { throw altered(entry, "sha256", found, entry.sha256) }
        }
    }
}

/// Every file below a folder with its size, by its path from there. Links and special files are refused.
private func filesBelow(_ folder: URL, _ prefix: String = "") throws -> [String: Int] {
    var found: [String: Int] = [:]
    let files = FileManager.default
    do {
        for name in try files.contentsOfDirectory(atPath: folder.path) {
            let url = folder.appendingPathComponent(name)
            let attributes = try files.attributesOfItem(atPath: url.path)
            switch attributes[.type] as? FileAttributeType {
            case .typeDirectory?: try found.merge(filesBelow(url, prefix + name + "/")) { first, _ in first }
            case .typeRegular?: found[prefix + name] = (attributes[.size] as? NSNumber)?.intValue ?? 0
            default: throw bundleError("a link or special file in the bundle", got: prefix + name)
            }
        }
    } catch let error as SatchelError {
        throw error
    } catch {
        throw bundleError("the bundle's folder cannot be read", got: reason(of: error), hint: "copy the bundle again")
    }
    return found
}

private func altered(_ entry: FileEntry, _ what: String, _ got: Any, _ wanted: Any) -> SatchelError {
    let hint = "the file was altered or damaged: copy the bundle again, or export it again"
    return bundleError("\(entry.path): its \(what) is not the manifest's", got: got, wanted: wanted, hint: hint)
}
