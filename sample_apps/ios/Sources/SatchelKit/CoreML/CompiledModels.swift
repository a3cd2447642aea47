#if canImport(CoreML)
    import CoreML
    import Foundation

    /// Packages compiled for this device, kept in the caches folder, which the system may empty: compiling takes long.
    enum CompiledModels {
        /// The compiled form of a bundle's package. Throws a FormatError.
        static func url(of package: String, in bundle: ModelBundle) throws -> URL {
            let place = try folder(of: bundle).appendingPathComponent(package).appendingPathExtension("mlmodelc")
            if FileManager.default.fileExists(atPath: place.path) { return place }
            let made = try compiled(bundle.url(package))
            do {
                try FileManager.default.createDirectory(
                    at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
                try FileManager.default.moveItem(at: made, to: place)
                return place
            } catch {
                return made  // in the temporary folder, where it serves as well until the app ends
            }
        }

        /// Forgets what was compiled of other bundles.
        static func keepOnly(_ bundle: ModelBundle) {
            guard let kept = try? folder(of: bundle) else { return }
            let parent = kept.deletingLastPathComponent()
            for name in (try? FileManager.default.contentsOfDirectory(atPath: parent.path)) ?? []
            where name != kept.lastPathComponent {
                try? FileManager.default.removeItem(at: parent.appendingPathComponent(name))
            }
        }

        /// By the manifest's hash and the system's version: what one system compiled, the next may compile better.
        private static func folder(of bundle: ModelBundle) throws -> URL {
            let caches = try FileManager.default.url(
                for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
            let system = fileName(ProcessInfo.processInfo.operatingSystemVersionString)
            return caches.appendingPathComponent("compiled").appendingPathComponent("\(bundle.id.prefix(16))-\(system)")
        }

        private static func compiled(_ package: URL) throws -> URL {
            let done = DispatchSemaphore(value: 0)
            let box = ResultBox()
            MLModel.compileModel(at: package) { result in
                box.result = result
                done.signal()
            }
            done.wait()
            do {
                return try box.result!.get()
            } catch {
                throw formatError(
                    "Core ML cannot compile \(package.lastPathComponent)", got: reason(of: error),
                    hint: "the package may be made for a newer system")
            }
        }

        /// Written before the semaphore is signalled, read after it.
        private final class ResultBox: @unchecked Sendable {
            var result: Result<URL, any Error>?
        }
    }
#endif
