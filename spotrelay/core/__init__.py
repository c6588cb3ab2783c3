"""Plain values and pure rules. Standard library only; nothing here touches the world."""
