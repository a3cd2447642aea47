import XCTest

@testable import SatchelKit

final class FigureTests: XCTestCase {
    func testLimitsAreTheRuntimes() throws {
        let resource = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Sources/SatchelKit/Resources/limits.json")
        XCTAssertEqual(
            try Data(contentsOf: resource), try Data(contentsOf: vectors.appendingPathComponent("limits.json")))
        let limits = try Limits()
        XCTAssertEqual(limits.tie(.lowering, .fp16), 0.25)
        let found = limits.limits(.quality, .int8, scheme: "palette")
        XCTAssertEqual(found["kl_mean"]?.isMaximum, true)
        XCTAssertEqual(found["top1"]?.isMaximum, false)
        XCTAssertEqual(found["top1"]?.allows(nil), false)
        XCTAssertEqual(found["top1"]?.allows(.nan), false)
        XCTAssertEqual(limits.limits(.quality, .int8, scheme: "unknown").count, 0)
        XCTAssertEqual(Arithmetic(format: .coreml, scheme: "palette"), .fp16)
        XCTAssertEqual(Arithmetic(format: .onnx, scheme: "fp32"), .fp32)
        XCTAssertEqual(Arithmetic(format: .executorch, scheme: "palette"), .int8)
    }

    func testFiguresAreThoseOfTheFormulas() {
        let logits: [Float] = [1, 2, 3, 0.5]
        let rest = Float(log(exp(1) + exp(0.5)))
        XCTAssertEqual(klFromTop([2, 1], [3, 2], rest, logits), 0, accuracy: 1e-7)
        XCTAssertEqual(klFromTop([0], [Float(log(3.0))], 0, [0, 0]), 0.75 * log(1.5) + 0.25 * log(0.5), accuracy: 1e-6)
        XCTAssert(klFromTop([0], [1], 0, [.nan, 0]).isNaN)
        XCTAssertEqual(percentile([1, 2, 3, 4], 0.5), 2.5)
        XCTAssertEqual(standardError([1, 1, 3, 3], block: 2), 1)
        XCTAssert(standardError([1, 1, 3], block: 2).isNaN)
        XCTAssertEqual(largestDifference([1], [3], [0, 1]), 2)
        XCTAssert(largestDifference([0, 1], [3, 3], [.nan, 1]).isNaN)
        XCTAssertEqual(rounded(0.123456789), 0.123457)
        XCTAssertNil(rounded(.infinity))
        XCTAssertEqual(fileName("Pixel 9 Pro_é"), "pixel-9-pro")
    }
}
