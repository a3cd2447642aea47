package ai.satchel.core

import java.math.BigInteger
import java.security.SecureRandom

/**
 * The random numbers of runtime/sampling.py, numpy's `Generator(PCG64(seed)).random()`: in [0, 1), with 53 random bits
 * each.
 *
 * PCG64 is O'Neill's PCG XSL-RR 128/64 (pcg-random.org); its state is made from the seed by numpy's SeedSequence, which
 * hashes it into a pool of four words (numpy.org, "Parallel random number generation").
 */
class Pcg64(seed: BigInteger) {
    private var state = BigInteger.ZERO
    private val increment: BigInteger

    constructor(seed: Long) : this(BigInteger.valueOf(seed))

    init {
        if (seed.signum() < 0) throw usageError("a seed is out of range", got = seed, wanted = "an integer, >= 0")
        val (a, b, c, d) = seedWords(seed)
        increment = ((c.shiftLeft(64) or d).shiftLeft(1) or BigInteger.ONE) and MASK_128
        advance()
        state = (state + (a.shiftLeft(64) or b)) and MASK_128
        advance()
    }

    fun next(): Double {
        advance()
        val mixed = state.shiftRight(64).toLong() xor state.toLong()
        val turned = java.lang.Long.rotateRight(mixed, state.shiftRight(122).toInt())
        return (turned ushr 11) * (1.0 / (1L shl 53))
    }

    private fun advance() {
        state = (state * MULTIPLIER + increment) and MASK_128
    }

    private companion object {
        val MASK_128: BigInteger = BigInteger.ONE.shiftLeft(128) - BigInteger.ONE
        val MULTIPLIER = BigInteger("2360ed051fc65da44385df649fccf645", 16)
    }
}

/** A seed from the system, for those who give none: 53 bits. */
fun systemSeed(): Long = SecureRandom().nextLong() ushr 11

private const val POOL = 4

/** SeedSequence(seed).generate_state(4, uint64). */
private fun seedWords(seed: BigInteger): List<BigInteger> {
    val pool = seedPool(words32(seed))
    var constant = 0x8b51f9dd.toInt()
    val words = IntArray(2 * POOL) { i ->
        val value = pool[i % POOL] xor constant
        constant *= 0x58f38ded
        folded(value * constant)
    }
    return (0 until POOL).map { i -> unsigned(words[2 * i + 1]).shiftLeft(32) or unsigned(words[2 * i]) }
}

private fun seedPool(entropy: List<Int>): IntArray {
    var constant = 0x43b0d7e5
    fun hashed(value: Int): Int {
        val mixed = value xor constant
        constant *= 0x931e8875.toInt()
        return folded(mixed * constant)
    }
    val pool = IntArray(POOL) { hashed(entropy.getOrElse(it) { 0 }) }
    for (from in 0 until POOL) for (to in 0 until POOL) if (from != to) pool[to] = mixed(pool[to], hashed(pool[from]))
    for (word in entropy.drop(POOL)) for (to in 0 until POOL) pool[to] = mixed(pool[to], hashed(word))
    return pool
}

private fun mixed(x: Int, y: Int): Int = folded(0xca01f9dd.toInt() * x - 0x4973f715 * y)

private fun folded(x: Int): Int = x xor (x ushr 16)

private fun unsigned(x: Int): BigInteger = BigInteger.valueOf(x.toLong() and 0xffffffffL)

/** The seed's 32-bit words, the lowest first; at least one. */
private fun words32(seed: BigInteger): List<Int> {
    val count = maxOf(1, (seed.bitLength() + 31) / 32)
    return List(count) { seed.shiftRight(32 * it).toInt() }
}
