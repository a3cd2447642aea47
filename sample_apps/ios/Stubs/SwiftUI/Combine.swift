// What SwiftUI brings along of Combine.

public protocol ObservableObject: AnyObject {}

@propertyWrapper
public struct Published<Value> {
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
    public init(initialValue: Value) { wrappedValue = initialValue }
    public var wrappedValue: Value
    public var projectedValue: Publisher { Publisher() }
    public struct Publisher {}
}
