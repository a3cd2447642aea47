import Foundation

// Of Apple's Foundation, which the open one lacks.
extension URL {
    public func startAccessingSecurityScopedResource() -> Bool { false }
    public func stopAccessingSecurityScopedResource() {}
}
