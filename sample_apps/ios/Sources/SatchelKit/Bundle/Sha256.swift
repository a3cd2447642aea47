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
                for start in stride(from: 0, to: whole, by: 64) {
                    Self.mix(&state, UnsafeRawBufferPointer(rebasing: bytes[start..<start + 64]))
                }
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
                let (small, large) = (
                    turned(a, 7) ^ turned(a, 18) ^ (a >> 3), turned(b, 17) ^ turned(b, 19) ^ (b >> 10)
                )
                words.append(words[i - 16] &+ small &+ words[i - 7] &+ large)
            }
            var (a, b, c, d) = (state[0], state[1], state[2], state[3])
            var (e, f, g, h) = (state[4], state[5], state[6], state[7])
            for i in 0..<64 {
                let first =
                    h &+ (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) &+ ((e & f) ^ (~e & g)) &+ constants[i]
                    &+ words[i]
                let second = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) &+ ((a & b) ^ (a & c) ^ (b & c))
                (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ second)
            }
            for (i, value) in [a, b, c, d, e, f, g, h].enumerated() { state[i] = state[i] &+ value }
        }
    }

    private func turned(_ value: UInt32, _ count: UInt32) -> UInt32 { value >> count | value << (32 - count) }

    private let constants: [UInt32] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
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
