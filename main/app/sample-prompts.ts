/** Sentences to begin with, in words the starter model knows. The first stands in the form on the first start. */
export const samplePrompts = [
  'a fox wearing a red scarf in a snowy forest at night, storybook style',
  'a bear reading a blue book in a cozy room, storybook style',
  'a cat in a purple dress holding a red balloon at the beach, storybook style',
  'a penguin in the snow at sunset, storybook style',
]
