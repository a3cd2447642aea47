import Foundation

public enum ElementType: String, Sendable {
    case float16, float32, int32

    var bytes: Int { self == .float16 ? 2 : 4 }
}

/// A tensor in memory of the host's own, rows first, without gaps.
public final class HostTensor: @unchecked Sendable {  // used by one queue
    public let shape: [Int]
    public let type: ElementType
    let memory: UnsafeMutableRawPointer

    var count: Int { shape.reduce(1, *) }
    var byteCount: Int { count * type.bytes }

    /// Zeros.
    public init(_ shape: [Int], _ type: ElementType) {
        self.shape = shape
        self.type = type
        let bytes = max(shape.reduce(1, *) * type.bytes, 1)
        memory = .allocate(byteCount: bytes, alignment: 64)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    }

    public convenience init(_ shape: [Int], _ values: [Int32]) {
        self.init(shape, .int32)
        values.withUnsafeBytes { memory.copyMemory(from: $0.baseAddress!, byteCount: min($0.count, byteCount)) }
    }

    /// A copy of a tensor that may have gaps between rows. strides: in elements.
    convenience init(_ shape: [Int], _ type: ElementType, from source: UnsafeRawPointer, strides: [Int]) {
        self.init(shape, type)
        copyRows(from: source, strides: strides, axis: 0, offset: 0, place: 0)
    }

    deinit { memory.deallocate() }

    func clear() { memset(memory, 0, byteCount) }

    /// One axis after the other; what lies side by side at the end is copied at once.
    private func copyRows(from source: UnsafeRawPointer, strides: [Int], axis: Int, offset: Int, place: Int) {
        let inner = shape[axis...].reduce(1, *)
        if inner == 0 { return }
        if isDense(strides, from: axis) {
            (memory + place * type.bytes).copyMemory(from: source + offset * type.bytes, byteCount: inner * type.bytes)
            return
        }
        for i in 0..<shape[axis] {
            copyRows(
                from: source, strides: strides, axis: axis + 1, offset: offset + i * strides[axis],
                place: place + i * (inner / shape[axis]))
        }
    }

    private func isDense(_ strides: [Int], from axis: Int) -> Bool {
        var wanted = 1
        for i in shape.indices.dropFirst(axis).reversed() {
            if shape[i] != 1 && strides[i] != wanted { return false }
            wanted *= shape[i]
        }
        return true
    }

    /// Takes over rows `0..<rows` of axis 2 of a [L, H, S, D], to begin at `position` of this [L, H, C, D].
    func write(_ rows: Int, of given: HostTensor, at position: Int) throws {
        let fits =
            shape.count == 4 && given.shape.count == 4 && given.type == type && shape[0] == given.shape[0]
            && shape[1] == given.shape[1] && shape[3] == given.shape[3] && rows <= given.shape[2]
        guard fits, position >= 0, position + rows <= shape[2] else {
            throw formatError("the package's new rows do not fit the cache", got: given.shape, wanted: shape)
        }
        let width = shape[3] * type.bytes
        for head in 0..<shape[0] * shape[1] {
            let from = given.memory + head * given.shape[2] * width
            (memory + (head * shape[2] + position) * width).copyMemory(from: from, byteCount: rows * width)
        }
    }

    /// Row `index` of the last axis, as floats.
    func row(_ index: Int) -> [Float] {
        let width = shape.last ?? 1
        let start = memory + index * width * type.bytes
        switch type {
        case .float32: return Array(UnsafeBufferPointer(start: start.assumingMemoryBound(to: Float.self), count: width))
        case .float16:
            return UnsafeBufferPointer(start: start.assumingMemoryBound(to: UInt16.self), count: width).map(
                float(ofHalf:))
        case .int32:
            return UnsafeBufferPointer(start: start.assumingMemoryBound(to: Int32.self), count: width).map(Float.init)
        }
    }
}

/// Bits of a half -> the number. Swift's Float16 is missing on Macs with Intel processors.
func float(ofHalf bits: UInt16) -> Float {
    let (sign, exponent, fraction) = (UInt32(bits >> 15) << 31, UInt32(bits >> 10 & 0x1F), UInt32(bits & 0x3FF))
    switch exponent {
    case 0:  // zero, and numbers below the smallest normal one
        let value = Float(fraction) * 0x1p-24
        return Float(bitPattern: value.bitPattern | sign)
    case 0x1F: return Float(bitPattern: sign | 0x7F80_0000 | fraction << 13)
    default: return Float(bitPattern: sign | (exponent + 112) << 23 | fraction << 13)
    }
}
