import Foundation

open class XCTestExpectation: NSObject {
    open func fulfill() {}
}

open class XCTAttachment: NSObject {
    public enum Lifetime: Int { case keepAlways, deleteOnSuccess }
    public convenience init(data: Data, uniformTypeIdentifier: String) { self.init() }
    open var name: String?
    open var lifetime: Lifetime = .deleteOnSuccess
}

open class XCTestCase: NSObject {
    open func expectation(description: String) -> XCTestExpectation { XCTestExpectation() }
    open func wait(for expectations: [XCTestExpectation], timeout seconds: TimeInterval) {}
    open func add(_ attachment: XCTAttachment) {}
}

public func XCTAssertFalse(
    _ expression: @autoclosure () throws -> Bool, _ message: @autoclosure () -> String = "",
    file: StaticString = #filePath, line: UInt = #line
) {}

public func XCTAssertEqual<T: Equatable>(
    _ expression1: @autoclosure () throws -> T, _ expression2: @autoclosure () throws -> T,
    _ message: @autoclosure () -> String = "",
    file: StaticString = #filePath, line: UInt = #line
) {}

public func XCTAssertNoThrow<T>(
    _ expression: @autoclosure () throws -> T, _ message: @autoclosure () -> String = "",
    file: StaticString = #filePath, line: UInt = #line
) {}
