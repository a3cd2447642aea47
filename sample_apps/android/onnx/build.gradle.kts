import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.kotlin.jvm)
}

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

kotlin {
    compilerOptions.jvmTarget.set(JvmTarget.JVM_1_8)
}

dependencies {
    api(project(":core"))
    // The same classes are in onnxruntime-android, which the app brings.
    compileOnly(libs.onnxruntime.jvm)
    testImplementation(libs.onnxruntime.jvm)
    testImplementation(libs.junit.jupiter)
}

tasks.test {
    useJUnitPlatform()
    systemProperty("satchel.vectors", rootDir.resolve("../vectors").path)
    systemProperty("satchel.fp32", projectDir.resolve("src/test/bundle").path)
}
