import { createContext } from 'svelte'
import type { AppModel } from './app.svelte.ts'

/** The state classes, made once in App.svelte. */
export const [getApp, setApp] = createContext<AppModel>()
