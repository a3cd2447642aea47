import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    id("com.android.application")
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "ai.satchel.sample"
    compileSdk = 36

    defaultConfig {
        applicationId = "ai.satchel.sample"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
        testInstrumentationRunner = "ai.satchel.sample.ParityInstrumentation"
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }

    // Bundles lie in the APK as they are: weights gain nothing by compression, and are copied out of it once.
    androidResources { noCompress += listOf("onnx", "data", "pte", "f32", "i32") }

    packaging {
        // Native libraries stay uncompressed and are mapped out of the APK, at pages of 16 KB.
        jniLibs { useLegacyPackaging = false }
        // The same C++ library comes with both runtimes.
        jniLibs { pickFirsts += "**/libc++_shared.so" }
    }

    sourceSets {
        getByName("main").java.srcDirs("src/main/kotlin")
        getByName("androidTest").java.srcDirs("src/androidTest/kotlin")
    }
}

kotlin {
    compilerOptions.jvmTarget.set(JvmTarget.JVM_1_8)
}

dependencies {
    implementation(project(":onnx"))
    implementation(libs.onnxruntime.android)
    implementation(libs.executorch.android)
}
