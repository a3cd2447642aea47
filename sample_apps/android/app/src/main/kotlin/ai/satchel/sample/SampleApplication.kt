package ai.satchel.sample

import android.app.Application

/** Keeps the model and what it does apart from the screens, which the system may make anew at any time. */
class SampleApplication : Application() {
    lateinit var state: AppState
        private set

    override fun onCreate() {
        super.onCreate()
        state = AppState(Worker(), Places(this), Device(this))
    }
}
