import Foundation

/// The bundles that an app has: those that came with it, and those that a person put beside it through Files.
public struct BundleLibrary: Sendable {
    public struct Item: Identifiable, Hashable, Sendable {
        public let url: URL
        /// Whether it may be removed: what came with the app may not.
        public let isRemovable: Bool

        public var id: URL { url }
        public var name: String { url.deletingPathExtension().lastPathComponent }
    }

    private let included: URL?
    private let own: URL

    /// included: folder of the app's resources; own: folder that Files shows.
    public init(included: URL?, own: URL) {
        self.included = included
        self.own = own
    }

    /// Of this app: the folder "Bundles" among its resources, and its documents.
    public static func ofApp() -> BundleLibrary {
        let documents = FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)[0]
        return BundleLibrary(included: Bundle.main.url(forResource: "Bundles", withExtension: nil), own: documents)
    }

    public var documents: URL { own }

    /// Every folder <name>.satchel with a manifest, by name.
    public func items() -> [Item] {
        let included = included.map { bundles(in: $0, areRemovable: false) } ?? []
        return (included + bundles(in: own, areRemovable: true)).sorted { $0.name < $1.name }
    }

    /// Copies a folder in, such as one that a person chose; a bundle of that name is replaced only by a whole one.
    /// Throws a BundleError or OutputError.
    public func add(_ folder: URL) throws -> Item {
        _ = try ModelBundle(folder: folder, verify: false)  // a folder that is no bundle is told at once
        let files = FileManager.default
        let name = folder.pathExtension == "satchel" ? folder.lastPathComponent : folder.lastPathComponent + ".satchel"
        let target = own.appendingPathComponent(name)
        if target.standardizedFileURL == folder.standardizedFileURL { return Item(url: target, isRemovable: true) }
        let partial = own.appendingPathComponent(".\(name).partial")
        do {
            try? files.removeItem(at: partial)
            try files.copyItem(at: folder, to: partial)
            if files.fileExists(atPath: target.path) { try files.removeItem(at: target) }
            try files.moveItem(at: partial, to: target)
        } catch {
            try? files.removeItem(at: partial)
            throw outputError(
                "the bundle cannot be copied", got: reason(of: error), hint: "is there room on the device?")
        }
        return Item(url: target, isRemovable: true)
    }

    /// Throws an OutputError.
    public func remove(_ item: Item) throws {
        guard item.isRemovable else { throw outputError("a bundle that came with the app stays", got: item.name) }
        do {
            try FileManager.default.removeItem(at: item.url)
        } catch {
            throw outputError("the bundle cannot be removed", got: reason(of: error))
        }
    }

    private func bundles(in folder: URL, areRemovable: Bool) -> [Item] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        let found = names.filter { $0.hasSuffix(".satchel") && !$0.hasPrefix(".") }.map {
            folder.appendingPathComponent($0)
        }
        return found.filter { FileManager.default.fileExists(atPath: $0.appendingPathComponent("manifest.json").path) }
            .map { Item(url: $0, isRemovable: areRemovable) }
    }
}
