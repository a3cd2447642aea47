import Foundation
import SatchelKit
import XCTest

/// Runs on a device: every bundle that came with the app, or lies in its folder, says what its golden data say.
final class ParityTests: XCTestCase {
    func testEveryBundle() throws {
        let library = BundleLibrary.ofApp()
        let items = library.items()
        XCTAssertFalse(items.isEmpty, "no bundle: put one into App/Bundles, or into the app's folder in Files")
        for item in items {
            let bundle = try ModelBundle(folder: item.url)
            let start = Date()
            let backend = try CoreMLBackend.open(bundle)
            let seconds = Date().timeIntervalSince(start)
            let placement = try placement(bundle)
            let name = items.count == 1 ? nil : "\(ParityHost.current().device)-\(item.name)"
            let host = ParityHost.current(name: name, compute: bundle.manifest.entry.option("compute"), placement: placement)
            let report = try checkParity(bundle, backend, host: host, loadSeconds: seconds)
            keep(report, in: library.documents)
            let failures = report.failures.map { "\($0.comparison) \($0.route) \($0.figure) \($0.value ?? .nan)" }
            XCTAssertEqual(failures, [], item.name)
        }
    }

    /// In the app's folder, for Files and `satchel parity compare`, and among the test's results.
    private func keep(_ report: ParityReport, in folder: URL) {
        XCTAssertNoThrow(try report.json.write(to: folder.appendingPathComponent(report.fileName), options: .atomic))
        let attachment = XCTAttachment(data: report.json, uniformTypeIdentifier: "public.json")
        attachment.name = report.fileName
        attachment.lifetime = .keepAlways
        add(attachment)
    }

    private func placement(_ bundle: ModelBundle) throws -> Placement? {
        guard #available(iOS 17.4, macOS 14.4, *) else { return nil }
        var found: Placement?
        let done = expectation(description: "placement")
        Task {
            found = try? await Placement.read(bundle)
            done.fulfill()
        }
        wait(for: [done], timeout: 120)
        return found
    }
}
