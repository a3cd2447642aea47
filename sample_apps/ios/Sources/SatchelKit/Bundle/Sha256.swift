import Foundation

#if canImport(CryptoKit)
import CryptoKit

/// SHA-256 over data that comes in pieces.
struct Sha256 {
    private var hash = SHA256()

    mutating func update(_ data: Data) { hash.update(data: data) }

    func hexadecimal() -> String { hash.finalize().map { padded(String($0, radix: 16), to: 2) }.joined() }
}
#else
/// SHA-256 (FIPS 180-4) where there is no CryptoKit.
struct Sha256 {
    private var state: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    private var rest: [UInt8] = []
    private var length: UInt64 = 0

    mutating func update(_ data: Data) {
        length += UInt64(data.count)
        rest += data
        let whole = rest.count / 64 * 64
        rest.withUnsafeBytes { bytes in
            for start in stride(from: 0, to: whole, by: 64) { Self.mix(&state, UnsafeRawBufferPointer(rebasing: bytes[start..<start + 64])) }
        }
        rest.removeFirst(whole)
    }

    func hexadecimal() -> String {
        var last = self
        let zeros = (119 - Int(length % 64)) % 64
        let end = withUnsafeBytes(of: (length * 8).bigEndian) { Data($0) }
        last.update(Data([0x80]) + Data(count: zeros) + end)
        return last.state.map { padded(String($0, radix: 16), to: 8) }.joined()
    }

    private static func mix(_ state: inout [UInt32], _ block: UnsafeRawBufferPointer) {
        var words = (0..<16).map { UInt32(bigEndian: block.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)) }
        words.reserveCapacity(64)
        for i in 16..<64 {
            let (a, b) = (words[i - 15], words[i - 2])
            let (small, large) = (turned(a, 7) ^ turned(a, 18) ^ (a >> 3), turned(b, 17) ^ turned(b, 19) ^ (b >> 10))
            words.append(words[i - 16] &+ small &+ words[i - 7] &+ large)
        }
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        for i in 0..<64 {
            let first = h &+ (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) &+ ((e & f) ^ (~e & g)) &+ constants[i] &+ words[i]
            let second = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) &+ ((a & b) ^ (a & c) ^ (b & c))
            (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ second)
        }
        for (i, value) in [a, b, c, d, e, f, g, h].enumerated() { state[i] = state[i] &+ value }
    }
}

private func turned(_ value: UInt32, _ count: UInt32) -> UInt32 { value >> count | value << (32 - count) }

private let constants: [UInt32] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]
#endif

/// sha256 of a file in hexadecimal, read in pieces. `counted` is told the bytes of each. Throws a BundleError.
func sha256(of file: URL, counted: (Int) throws -> Void = { _ in }) throws -> String {
    let piece = 4 << 20
    let handle: FileHandle
    do { handle = try FileHandle(forReadingFrom: file) } catch { throw unreadable(file, error) }
    defer { try? handle.close() }
    var hash = Sha256()
    while true {
        let data: Data?
        do { data = try handle.read(upToCount: piece) } catch { throw unreadable(file, error) }
        guard let data, !data.isEmpty else { return hash.hexadecimal() }
        hash.update(data)
        try counted(data.count)
    }
}

private func unreadable(_ file: URL, _ error: Error) -> SatchelError {
    bundleError("\(file.lastPathComponent) cannot be read", got: reason(of: error), hint: "copy the bundle again")
}
