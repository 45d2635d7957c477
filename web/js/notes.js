// Lets the commands in a note be selected and copied, which Nodes 2.0 keeps from its users: there a drag moves the node.

const COMMAND = '.lg-node .comfy-markdown-content pre'

const style = document.createElement('style')
style.textContent = `${COMMAND} { user-select: text; cursor: text; white-space: pre-wrap; overflow-wrap: anywhere }`
document.head.append(style)

for (const event of ['pointerdown', 'dblclick'])
  document.addEventListener(event, (press) => press.target.closest?.(COMMAND) && press.stopPropagation(), true)
