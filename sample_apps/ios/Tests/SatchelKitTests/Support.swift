import Foundation
import XCTest

@testable import SatchelKit

/// The folder of vectors that all apps share.
let vectors = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("../../../vectors").standardizedFileURL

func vector(_ path: String) throws -> Json {
    try parseJson(Data(contentsOf: vectors.appendingPathComponent(path)), path, exactIntegers: false)
}

/// The tiny bundle that tests/sample_apps/vectors.py made.
func tinyBundle() throws -> URL {
    let folder = vectors.appendingPathComponent("bundle")
    let name = try FileManager.default.contentsOfDirectory(atPath: folder.path).first { $0.hasSuffix(".satchel") }
    return folder.appendingPathComponent(try XCTUnwrap(name))
}

extension Json {
    var integers: [Int] { array!.map { $0.integer! } }
    var numbers: [Double] { array!.map { $0.number! } }
    var floats: [Float] { numbers.map(Float.init) }
}

/// What is written alike: Swift's own `==` takes composed and decomposed letters for equal.
func XCTAssertSameText(
    _ got: String, _ wanted: String, _ what: String = "", file: StaticString = #filePath, line: UInt = #line
) {
    XCTAssert(
        got.utf8.elementsEqual(wanted.utf8), "\(what): got \(quoted(got)), wanted \(quoted(wanted))", file: file,
        line: line)
}

func XCTAssertRefused(
    _ message: String, file: StaticString = #filePath, line: UInt = #line, _ work: () throws -> Void
) {
    XCTAssertThrowsError(try work(), file: file, line: line) { error in
        XCTAssert(error is SatchelError, "\(error)", file: file, line: line)
        XCTAssert("\(error)".contains(message), "got: \(error); wanted: \(message)", file: file, line: line)
    }
}

/// A folder that goes when the test ends.
func scratchFolder(_ test: XCTestCase) throws -> URL {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("satchel-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    test.addTeardownBlock { try? FileManager.default.removeItem(at: folder) }
    return folder
}
