public struct UTType: Hashable, Sendable {
    public init(exportedAs identifier: String, conformingTo parentType: UTType? = nil) {}
    public static var folder: UTType { UTType(exportedAs: "public.folder") }
}
