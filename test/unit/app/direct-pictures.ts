import type { PictureClient, PictureDifference, PictureFacts } from '../../../main/engine/picture-client.ts'
import { doPictureTask } from '../../../main/engine/picture-tasks.ts'

/** The picture worker's work, done in this process. */
export const directPictures: Pick<PictureClient, 'look' | 'thumb' | 'compare'> = {
  look: (file, thumb) => doPictureTask({ type: 'look', file, thumb }) as Promise<PictureFacts>,
  thumb: async (file, out) => void (await doPictureTask({ type: 'thumb', file, out })),
  compare: (file, other) => doPictureTask({ type: 'compare', file, other }) as Promise<PictureDifference>,
}
