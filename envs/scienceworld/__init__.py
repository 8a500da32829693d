"""ScienceWorld: science experiments in text, on upstream's own simulator. `java` finds a Java, `server` runs the simulator."""
